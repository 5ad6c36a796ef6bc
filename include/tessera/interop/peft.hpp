// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// LoRA and DoRA adapters in PEFT's files: a folder with adapter_config.json and adapter_model.safetensors.
///
///     auto const adapter = ts::peft::read("folder");
///     if (auto const* m = adapter.find("model.layers.0.self_attn.q_proj")) {
///         auto const w = ts::linear{q} + m->low_rank();           // m->scale * B A; m->magnitude where it is DoRA
///     }
///     ts::peft::write("other", adapter);                          // the folder must exist
///
/// The scale is alpha / r, or alpha / sqrt(r) with use_rslora; rank_pattern and alpha_pattern give modules their own, by
/// PEFT's rule: the first key that is the end of the module's name, from a dot on. A setting that changes the mathematics
/// and is not known here is refused, as is a key that nobody knows with a value other than null, false or empty; so are
/// tensors that are no factor of a linear layer. Factors are read from float32, fp16 or bf16 and kept in float32.

#include "../operators/linear_operator.hpp"
#include "../storage/mapped_file.hpp"
#include "safetensors_writer.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI::peft {

/// PEFT's file names, what it puts before a module's name, and the largest configuration that is read.
inline constexpr char const* config_name = "adapter_config.json";
inline constexpr char const* tensors_name = "adapter_model.safetensors";
inline constexpr std::string_view name_prefix = "base_model.model.";
inline constexpr std::size_t max_config_bytes = std::size_t{1} << 20;

/// A value for the modules whose name ends like this.
struct pattern {
    std::string name;
    double value;
};

/// What of adapter_config.json means something to a forward pass.
struct adapter_config {
    index_t r = 8;
    double lora_alpha = 8;
    bool use_rslora = false;
    bool use_dora = false;
    std::vector<std::string> target_modules; ///< ends of names
    bool targets_by_expression = false;      ///< target_modules is one string in the file: a regular expression, or "all-linear"
    std::vector<pattern> rank_pattern;
    std::vector<pattern> alpha_pattern;
    std::string base_model;

    index_t rank_of(std::string_view module) const { return static_cast<index_t>(lookup(rank_pattern, module, static_cast<double>(r))); }
    double alpha_of(std::string_view module) const { return lookup(alpha_pattern, module, lora_alpha); }
    /// Of B A.
    double scale_of(std::string_view module) const {
        double const rank = static_cast<double>(rank_of(module));
        return alpha_of(module) / (use_rslora ? std::sqrt(rank) : rank);
    }

private:
    /// PEFT: re.match("(.*\.)?(KEY)$", module); a dot in KEY matches any character.
    static bool is_end(std::string_view module, std::string_view key) noexcept {
        if (key.size() > module.size()) return false;
        std::size_t const first = module.size() - key.size();
        for (std::size_t i = 0; i < key.size(); ++i)
            if (key[i] != '.' && key[i] != module[first + i]) return false;
        return first == 0 || module[first - 1] == '.';
    }
    static double lookup(std::vector<pattern> const& patterns, std::string_view module, double otherwise) noexcept {
        for (pattern const& p : patterns)
            if (is_end(module, p.name)) return p.value;
        return otherwise;
    }
};

/// The factors of one module.
struct module_adapter {
    std::string name;        ///< in the model: "model.layers.0.self_attn.q_proj"
    matrix<float> b;         ///< (n, r)
    matrix<float> a;         ///< (r, k)
    vector<float> magnitude; ///< (n) of DoRA, otherwise empty
    float scale = 1;

    index_t rank() const noexcept { return a.extent(0); }
    auto low_rank() const& { return tessera::low_rank{b.view(), a.view(), scale}; }
    void low_rank() const&& = delete;
};

/// What a folder of PEFT's holds.
struct adapter {
    adapter_config config;
    std::vector<module_adapter> modules; ///< by name

    /// Null where the module has no adapter.
    module_adapter const* find(std::string_view name) const noexcept {
        for (module_adapter const& m : modules)
            if (m.name == name) return &m;
        return nullptr;
    }
};

namespace detail {

using tessera::detail::quoted_name;
using tessera::detail::raise;

/// Reads a value; true where it is null, false or empty.
inline bool is_nothing(json::reader& in) {
    bool something = false;
    switch (in.peek()) {
    case json::kind::null: in.null(); break;
    case json::kind::boolean: something = in.boolean(); break;
    case json::kind::string: something = !in.string().empty(); break;
    case json::kind::number: in.number(), something = true; break;
    case json::kind::array: in.array([&] { in.skip(), something = true; }); break;
    case json::kind::object: in.object([&](std::string const&) { in.skip(), something = true; }); break;
    }
    return !something;
}

class config_parser {
public:
    config_parser(std::string_view text, std::string_view file_name)
        : in_{text, "tessera: peft: " + std::string{file_name} + ": "} {
        if (text.size() > max_config_bytes) in_.fail(max_config_bytes, "is too long");
    }

    adapter_config run() {
        in_.object([&](std::string const& key) {
            in_.expecting("value", "key", key);
            member(key);
            in_.expecting("text");
        });
        in_.end();
        if (!is_lora_) in_.fail(0, "has no key 'peft_type'");
        return std::move(result_);
    }

private:
    void member(std::string const& key) {
        auto const at = in_.offset();
        if (key == "r") {
            result_.r = rank(at, in_.number());
        } else if (key == "lora_alpha") {
            result_.lora_alpha = in_.number();
        } else if (key == "use_rslora") {
            result_.use_rslora = in_.boolean();
        } else if (key == "use_dora") {
            result_.use_dora = in_.boolean();
        } else if (key == "rank_pattern" || key == "alpha_pattern") {
            patterns(key == "rank_pattern");
        } else if (key == "target_modules") {
            result_.targets_by_expression = in_.peek() == json::kind::string;
            names(result_.target_modules);
        } else if (key == "base_model_name_or_path") {
            in_.peek() == json::kind::string ? void(result_.base_model = in_.string()) : in_.null();
        } else if (key == "peft_type") {
            is_lora_ = true;
            wants(at, {"LORA"});
        } else if (key == "bias") {
            wants(at, {"none"});
        } else if (key == "init_lora_weights") {
            // Others (PiSSA, OLoRA, CorDA, LoftQ) train on a base that is not the model's.
            if (in_.peek() == json::kind::string)
                wants(at, {"gaussian", "eva", "orthogonal"});
            else
                static_cast<void>(is_nothing(in_));
        } else if (is_remark(key)) {
            in_.skip();
        } else if (!is_nothing(in_)) {
            in_.fail(at, "changes what the adapter computes, or is unknown here; expected null, false or empty");
        }
    }

    /// Keys that change nothing once the factors are there.
    static bool is_remark(std::string_view key) noexcept {
        for (std::string_view const k : {"auto_mapping", "exclude_modules", "inference_mode", "layers_pattern",
                                         "layers_to_transform", "lora_dropout", "megatron_core", "peft_version",
                                         "qalora_group_size", "revision", "task_type"})
            if (k == key) return true;
        return false;
    }

    void wants(std::uint64_t at, std::initializer_list<std::string_view> known) {
        std::string const value = in_.string();
        std::string list;
        for (std::string_view const k : known) {
            if (k == value) return;
            list += (list.empty() ? "" : " or ") + quoted_name(k);
        }
        in_.fail(at, "is " + quoted_name(value) + ", expected " + list);
    }

    index_t rank(std::uint64_t at, double value) const {
        if (!(value >= 1 && value <= 1 << 20) || value != std::floor(value))
            in_.fail(at, "is no rank, expected a whole number from 1 to 1048576");
        return static_cast<index_t>(value);
    }

    void patterns(bool is_rank) {
        auto& list = is_rank ? result_.rank_pattern : result_.alpha_pattern;
        if (in_.peek() == json::kind::null) return in_.null();
        in_.object([&](std::string const& name) {
            auto const at = in_.offset();
            for (char const c : name)
                if (!(c == '.' || c == '_' || c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
                    in_.fail(at, "pattern " + quoted_name(name) + " is a regular expression, expected the end of a name");
            double const value = in_.number();
            list.push_back({name, is_rank ? static_cast<double>(rank(at, value)) : value});
        });
    }

    void names(std::vector<std::string>& list) {
        if (in_.peek() == json::kind::null) return in_.null();
        if (in_.peek() == json::kind::string) return list.push_back(in_.string());
        in_.array([&] { list.push_back(in_.string()); });
    }

    json::reader in_;
    adapter_config result_;
    bool is_lora_ = false;
};

/// The elements of a tensor in float32.
inline void copy_elements(safetensors::tensor_entry const& t, float* out) {
    auto const copy = [&]<class T>(T) {
        auto const w = safetensors::as_dense<T>(t);
        for (index_t i = 0; i < w.size(); ++i) out[i] = static_cast<float>(w.data_handle()[i]);
    };
    if (t.type == element_type::f32) return copy(0.0f);
    if (t.type == element_type::f16) return copy(fp16{});
    if (t.type == element_type::bf16) return copy(bf16{});
    safetensors::detail::fail(t, std::string{"holds "} + name_of(t.type) + ", wanted F32, F16 or BF16");
}

/// Takes the name of a module and the part that a tensor is of it from the tensor's name.
inline std::string_view part_of(std::string_view name, std::string_view& module) {
    if (!name.starts_with(name_prefix)) return {};
    for (std::string_view const part : {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"})
        if (name.ends_with(part) && name.size() > name_prefix.size() + part.size()) {
            module = name.substr(name_prefix.size(), name.size() - name_prefix.size() - part.size());
            return part;
        }
    return {};
}

} // namespace detail

/// @throws format_error, also for settings that are not known here
inline adapter_config parse_config(std::string_view text, std::string_view file_name) {
    return detail::config_parser{text, file_name}.run();
}

/// The factors of a file with the scales of a configuration.
/// @throws format_error where they do not belong together
inline adapter load(adapter_config const& config, safetensors::file const& file) {
    using detail::quoted_name;
    adapter result{config, {}};
    for (safetensors::tensor_entry const& t : file.tensors()) {
        auto const fail = [&](std::string const& what) {
            detail::raise<format_error>("tessera: peft: " + file.name() + ": tensor " + quoted_name(t.name) + ": " + what);
        };
        std::string_view module;
        std::string_view const part = detail::part_of(t.name, module);
        if (part.empty()) fail("is no factor of a linear layer");
        auto const companion = [&](char const* suffix) {
            return file.find_tensor(std::string{name_prefix} + std::string{module} + suffix);
        };
        bool const is_magnitude = part.starts_with(".lora_m");
        if (is_magnitude && !config.use_dora) fail("is a magnitude, but use_dora is false");
        auto const* const a = companion(".lora_A.weight");
        auto const* const b = companion(".lora_B.weight");
        if (a == nullptr || b == nullptr) fail(std::string{"has no "} + (a == nullptr ? "lora_A" : "lora_B") + " beside it");
        if (part != ".lora_A.weight") continue;
        index_t const r = config.rank_of(module);
        if (a->rank != 2 || b->rank != 2 || a->dims[0] != r || b->dims[1] != r)
            fail("expected factors (n, " + std::to_string(r) + ") and (" + std::to_string(r) + ", k) of rank " +
                 std::to_string(r));
        double const scale = config.scale_of(module);
        if (!(std::fabs(scale) <= static_cast<double>(std::numeric_limits<float>::max())))
            fail("has the scale " + std::to_string(scale) + ", expected one that float32 holds");
        module_adapter m{std::string{module}, matrix<float>{b->dims[0], r}, matrix<float>{r, a->dims[1]}, {},
                         static_cast<float>(scale)};
        detail::copy_elements(*b, m.b.data());
        detail::copy_elements(*a, m.a.data());
        if (config.use_dora) {
            auto const* magnitude = companion(".lora_magnitude_vector");
            if (magnitude == nullptr) magnitude = companion(".lora_magnitude_vector.weight");
            if (magnitude == nullptr) fail("has no lora_magnitude_vector beside it, but use_dora is true");
            if (magnitude->size() != b->dims[0])
                fail("has a magnitude of " + std::to_string(magnitude->size()) + " values, expected " + std::to_string(b->dims[0]));
            m.magnitude = vector<float>{b->dims[0]};
            detail::copy_elements(*magnitude, m.magnitude.data());
        }
        result.modules.push_back(std::move(m));
    }
    std::sort(result.modules.begin(), result.modules.end(),
              [](module_adapter const& x, module_adapter const& y) { return x.name < y.name; });
    return result;
}

/// Reads an adapter's folder.
/// @throws format_error
inline adapter read(std::string const& folder) {
    std::string const config_path = folder + "/" + config_name;
    mapped_file const text{config_path, file_access::read};
    adapter_config const config =
        parse_config({reinterpret_cast<char const*>(text.bytes().data()), text.bytes().size()}, config_path);
    std::string const path = folder + "/" + tensors_name;
    mapped_file const bytes{path};
    return load(config, safetensors::parse(bytes.bytes(), path));
}

/// adapter_config.json.
inline std::string config_text(adapter_config const& c) {
    std::string out = "{\n  \"peft_type\": \"LORA\",\n  \"base_model_name_or_path\": ";
    auto const key = [&](char const* name) { out += std::string{",\n  \""} + name + "\": "; };
    auto const number = [&](double x) {
        char digits[32];
        out.append(digits, std::to_chars(digits, digits + sizeof digits, x).ptr);
    };
    auto const patterns = [&](std::vector<pattern> const& list) {
        out += '{';
        for (pattern const& p : list) {
            if (&p != list.data()) out += ", ";
            json::append_string(out, p.name);
            out += ": ";
            number(p.value);
        }
        out += '}';
    };
    json::append_string(out, c.base_model);
    key("r"), number(static_cast<double>(c.r));
    key("lora_alpha"), number(c.lora_alpha);
    key("use_rslora"), out += c.use_rslora ? "true" : "false";
    key("use_dora"), out += c.use_dora ? "true" : "false";
    key("rank_pattern"), patterns(c.rank_pattern);
    key("alpha_pattern"), patterns(c.alpha_pattern);
    bool const is_expression = c.targets_by_expression && c.target_modules.size() == 1;
    key("target_modules"), out += is_expression ? "" : "[";
    for (std::string const& m : c.target_modules) {
        if (&m != c.target_modules.data()) out += ", ";
        json::append_string(out, m);
    }
    out += is_expression ? "" : "]";
    key("bias"), out += "\"none\"";
    key("lora_dropout"), out += "0.0";
    key("fan_in_fan_out"), out += "false";
    key("inference_mode"), out += "true";
    return out + "\n}\n";
}

/// Writes both files into a folder that exists; factors as float32.
/// @throws shape_error where factors do not fit each other or the configuration, format_error where files cannot be written
inline void write(std::string const& folder, adapter const& adapter) {
    safetensors::writer out;
    out.set("format", "pt");
    for (module_adapter const& m : adapter.modules) {
        std::string const name = std::string{name_prefix} + m.name;
        check::equal("peft::write", "rows of A", m.a.extent(0), adapter.config.rank_of(m.name), "rank of the module");
        check::equal("peft::write", "columns of B", m.b.extent(1), m.a.extent(0), "rows of A");
        check::equal("peft::write", "size of the magnitude", m.magnitude.size(), adapter.config.use_dora ? m.b.extent(0) : 0,
                     adapter.config.use_dora ? "rows of B" : "use_dora is false");
        if (m.scale != static_cast<float>(adapter.config.scale_of(m.name)))
            detail::raise<shape_error>("tessera: peft::write: scale of " + detail::quoted_name(m.name) + " is " + std::to_string(m.scale) +
                                       ", expected " + std::to_string(adapter.config.scale_of(m.name)) +
                                       " (what the configuration says)");
        out.add_tensor(name + ".lora_A.weight", m.a.view());
        out.add_tensor(name + ".lora_B.weight", m.b.view());
        if (adapter.config.use_dora) out.add_tensor(name + ".lora_magnitude_vector", m.magnitude.view());
    }
    out.save(folder + "/" + tensors_name);
    std::string const text = config_text(adapter.config);
    tessera::detail::save_file("peft", folder + "/" + config_name,
                               [&](auto const& sink) { sink(std::as_bytes(std::span{text})); });
}

} // namespace tessera::inline TESSERA_ABI::peft
