// SPDX-License-Identifier: MIT
#include "weights.hpp"

#include <algorithm>
#include <exception>
#include <string>

namespace compress {

namespace {

bool is_number(ts::element_type t) {
    return t == ts::element_type::f32 || t == ts::element_type::f16 || t == ts::element_type::bf16;
}

/// In the names of BERT's, Llama's and GPT-2's files.
bool is_embedding(std::string const& name) {
    for (char const* const part : {"embed", "wte.", "wpe."})
        if (name.find(part) != std::string::npos) return true;
    return false;
}

ts::matrix<float> decode(ts::safetensors::tensor_entry const& t) {
    auto const copied = [](auto const& w) {
        ts::matrix<float> out{w.extent(0), w.extent(1)};
        for (index_t n = 0; n < w.extent(0); ++n)
            for (index_t k = 0; k < w.extent(1); ++k) out(n, k) = static_cast<float>(w(n, k));
        return out;
    };
    if (t.type == ts::element_type::f16) return copied(ts::safetensors::as_dense<ts::fp16>(t));
    if (t.type == ts::element_type::bf16) return copied(ts::safetensors::as_dense<ts::bf16>(t));
    return copied(ts::safetensors::as_dense<float>(t));
}

} // namespace

weight_file::weight_file(backend const& exec, ts::safetensors::file const& file) : exec_{exec} {
    for (auto const& t : file.tensors()) {
        if (t.rank != 2 || !is_number(t.type) || !t.name.ends_with("weight") || t.dims[0] == 0 || t.dims[1] == 0) continue;
        if (is_embedding(t.name)) {
            ++others_;
            continue;
        }
        matrices_.push_back(&t);
        weights_ += t.dims[0] * t.dims[1];
    }
    if (matrices_.empty())
        ts::detail::raise<ts::format_error>(file.name() + ": holds no two-dimensional weight in float32, float16 or bfloat16");
}

bool weight_file::fits(scheme const& s) const {
    return std::all_of(matrices_.begin(), matrices_.end(), [&](auto const* t) { return t->dims[1] % s.multiple == 0; });
}

result weight_file::converted(scheme const& s, std::function<void(double)> const& done) const {
    result r;
    r.name = s.name;
    r.kind = s.kind;
    r.x = s.x;
    std::vector<weight_error> each(matrices_.size());
    std::vector<std::exception_ptr> errors(matrices_.size());
    constexpr std::size_t at_once = 8;
    for (std::size_t first = 0; first < matrices_.size(); first += at_once) {
        std::size_t const last = std::min(first + at_once, matrices_.size());
        ts::parallel_for(exec_.parallel(), static_cast<index_t>(last - first), 1, [&](index_t i, index_t, index_t) noexcept {
            std::size_t const at = first + static_cast<std::size_t>(i);
            try {
                ts::matrix<float> const w = decode(*matrices_[at]);
                each[at] = s.encode(w.view())->error();
            } catch (...) {
                errors[at] = std::current_exception();
            }
        });
        done(static_cast<double>(last) / static_cast<double>(matrices_.size()));
    }
    for (auto const& error : errors)
        if (error) std::rethrow_exception(error);
    for (weight_error const& e : each) r.error.add(e);
    return r;
}

} // namespace compress
