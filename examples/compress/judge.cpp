// SPDX-License-Identifier: MIT
#include "judge.hpp"

#include "../generate/report.hpp"
#include "divergence.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace compress {

/// What llama.hpp calls a projection, of operators of run-time type below each other.
class judge::any_projection {
public:
    any_projection() = default;
    explicit any_projection(std::vector<ts::any_operator<backend>>&& parts) : parts_{std::move(parts)} {}

    index_t bytes() const {
        index_t sum = 0;
        for (auto const& w : parts_) sum += w.bytes();
        return sum;
    }
    template <class Finish = ts::no_epilogue>
    void apply(backend const& exec, ts::matrix_view<float const> const& x, // (m, k)
               ts::matrix_view<float> const& y,                            // (m, n)
               Finish const& finish = {}) const {
        index_t first = 0;
        for (auto const& w : parts_) {
            ts::apply(exec, w.view(), x, ts::columns(y, first, first + w.rows()), finish);
            first += w.rows();
        }
    }
    index_t workspace_bytes(backend const& exec, ts::matrix_view<float const> const& x) const {
        index_t most = 0;
        for (auto const& w : parts_) most = ts::maximum(most, ts::workspace_bytes(exec, w.view(), x));
        return most;
    }

private:
    std::vector<ts::any_operator<backend>> parts_;
};

/// What llama.hpp is made of here: any operators, and one kind of cache, as examples/generate has by default.
struct judge::parts {
    using projection_type = any_projection;
    using kv_type = generate::basic_kv_memory<ts::kv_formats<ts::fp16>>;
    maker const* make;
    any_projection operator()(backend const&, tensors stack, generate::activations, ts::memory_arena& arena,
                              std::vector<std::optional<generate::matrix_adapter>>&&) const {
        return (*make)(stack, arena);
    }
};

namespace {

bool is_head(tensors stack) {
    return stack[0]->name == "output.weight" || stack[0]->name == "token_embd.weight";
}

} // namespace

std::string type_name(ts::gguf::tensor_type type) {
    std::string name = ts::gguf::name_of(type);
    for (char& c : name)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    return name;
}

namespace {

/// Matrices that are converted at once, by as many threads as there are; bounds the memory.
constexpr std::size_t window = 16;

} // namespace

judge::judge(backend const& exec, ts::gguf::file const& file, std::vector<token_id> const& text, int decode_runs,
             index_t decode_tokens)
    : exec_{exec}, file_{file}, text_{text}, decode_runs_{decode_runs},
      decode_tokens_{ts::minimum(decode_tokens, static_cast<index_t>(text.size()))} {
    ts::check::at_least("compress", "tokens of the text", static_cast<index_t>(text.size()), 1);
}

result judge::stored(form x, report const& done) {
    // The model itself says which matrices are multiplied, in which order: the first that is made is asked.
    bool const is_first = layers_.empty();
    std::set<std::string> types;
    maker const make = [&](tensors stack, ts::memory_arena& arena) {
        if (is_first && is_head(stack)) head_ = stack[0];
        if (is_first && !is_head(stack)) {
            layers_.emplace_back(stack.begin(), stack.end());
            for (auto const* t : stack) {
                types.insert(type_name(t->type));
                stored_error_.bytes += static_cast<index_t>(t->bytes.size());
            }
            ts::matrix<float> const w = decode(stack);
            for (index_t i = 0; i < w.size(); ++i)
                stored_error_.signal += static_cast<double>(w.data()[i]) * static_cast<double>(w.data()[i]);
            stored_error_.count += w.size();
        }
        return any_projection{place_stored(exec_, stack, x, arena)};
    };
    result r = run(make, x, done);
    for (std::string const& type : types) types_ += (types_.empty() ? "" : ", ") + type;
    r.name = "as stored (" + types_ + ")";
    r.kind = family::stored;
    r.error = stored_error_;
    return r;
}

bool judge::fits(scheme const& s) const {
    return std::all_of(layers_.begin(), layers_.end(),
                       [&](auto const& stack) { return stack[0]->cols() % s.multiple == 0; });
}

std::vector<std::unique_ptr<encoded>> judge::encode_some(scheme const& s, std::size_t first) const {
    std::vector<std::unique_ptr<encoded>> out(std::min(window, layers_.size() - first));
    std::vector<std::exception_ptr> errors(out.size());
    ts::parallel_for(exec_.parallel(), static_cast<index_t>(out.size()), 1, [&](index_t i, index_t, index_t) noexcept {
        auto const at = static_cast<std::size_t>(i);
        try {
            ts::matrix<float> const w = decode(layers_[first + at]);
            out[at] = s.encode(w.view());
        } catch (...) {
            errors[at] = std::current_exception();
        }
    });
    for (auto const& error : errors)
        if (error) std::rethrow_exception(error);
    return out;
}

result judge::converted(scheme const& s, report const& done) {
    weight_error error;
    std::vector<std::unique_ptr<encoded>> ready;
    std::size_t next = 0; // projection
    maker const make = [&](tensors stack, ts::memory_arena& arena) {
        if (is_head(stack)) return any_projection{place_stored(exec_, stack, s.x, arena)};
        if (next % window == 0) {
            ready = encode_some(s, next);
            done(0.8 * static_cast<double>(std::min(next + window, layers_.size())) / static_cast<double>(layers_.size()));
        }
        std::unique_ptr<encoded> const w = std::move(ready[next++ % window]);
        error.add(w->error());
        std::vector<ts::any_operator<backend>> one;
        one.push_back(w->place(exec_, arena));
        return any_projection{std::move(one)};
    };
    result r = run(make, s.x, done);
    r.name = s.name;
    r.kind = s.kind;
    r.error = error;
    return r;
}

result judge::run(maker const& make, form x, report const& done) {
    generate::llama_options options;
    options.context = static_cast<index_t>(text_.size());
    options.chunk = 128;
    options.kv.formats = "fp16";
    index_t head_bytes = 0;
    maker const counted = [&](tensors stack, ts::memory_arena& arena) {
        any_projection made = make(stack, arena);
        if (is_head(stack)) head_bytes = made.bytes();
        return made;
    };
    generate::llama<backend, parts> model{exec_, file_, options, parts{&counted}};

    result r;
    r.x = x;
    r.placed_bytes = model.weight_bytes() - head_bytes;
    std::vector<float> logits;
    for (std::size_t at = 0; at < text_.size();) {
        std::size_t const n = std::min(static_cast<std::size_t>(options.chunk), text_.size() - at);
        auto const some = model.forward(std::span{text_}.subspan(at, n), static_cast<index_t>(n));
        logits.insert(logits.end(), some.data_handle(), some.data_handle() + some.size());
        at += n;
    }
    if (truth_.empty()) {
        truth_ = logits;
        std::size_t const vocabulary = logits.size() / text_.size();
        for (std::size_t i = 0; i < text_.size(); ++i)
            truth_norms_.push_back(log_sum_exp(std::span{logits}.subspan(i * vocabulary, vocabulary)));
    }
    r.text = compare(logits);
    done(0.9);

    std::vector<double> rates;
    for (int i = 0; i <= decode_runs_; ++i) {
        model.clear();
        generate::stopwatch watch;
        for (index_t t = 0; t < decode_tokens_; ++t) model(std::span{text_}.subspan(static_cast<std::size_t>(t), 1));
        if (i > 0) rates.push_back(static_cast<double>(decode_tokens_) / watch.seconds()); // the first warms up
    }
    r.tokens_per_second = generate::median(rates);
    done(1);
    return r;
}

quality judge::compare(std::vector<float> const& logits) const {
    std::size_t const positions = text_.size();
    std::size_t const vocabulary = logits.size() / positions;
    std::vector<double> each(positions);
    std::vector<char> same(positions);
    ts::parallel_for(exec_.parallel(), static_cast<index_t>(positions), 1, [&](index_t i, index_t, index_t) noexcept {
        auto const at = static_cast<std::size_t>(i);
        auto const p = std::span{truth_}.subspan(at * vocabulary, vocabulary);
        auto const q = std::span{logits}.subspan(at * vocabulary, vocabulary);
        each[at] = divergence(p, q, truth_norms_[at]);
        same[at] = most_probable(p) == most_probable(q);
    });
    quality out;
    for (std::size_t i = 0; i < positions; ++i) {
        out.divergence += each[i] / static_cast<double>(positions);
        out.largest = std::max(out.largest, each[i]);
        out.agreement += (same[i] ? 1.0 : 0.0) / static_cast<double>(positions);
    }
    return out;
}

} // namespace compress
