// SPDX-License-Identifier: MIT
#include "stored.hpp"

#include "../generate/projection.hpp"

namespace compress {

index_t rows_of(tensors stack) {
    index_t rows = 0;
    for (auto const* t : stack) rows += t->rows();
    return rows;
}

ts::matrix<float> decode(tensors stack) {
    ts::matrix<float> out{rows_of(stack), stack[0]->cols()};
    index_t at = 0;
    for (auto const* t : stack) {
        ts::gguf::with_storage(
            *t,
            [&](auto const& w) {
                for (index_t n = 0; n < t->rows(); ++n)
                    for (index_t k = 0; k < t->cols(); ++k) out(at + n, k) = static_cast<float>(w(n, k));
            },
            ts::gguf::block_formats{});
        at += t->rows();
    }
    return out;
}

std::vector<ts::any_operator<backend>> place_stored(backend const& exec, tensors stack, form x, ts::memory_arena& arena) {
    std::vector<ts::any_operator<backend>> out;
    for (std::size_t i = 0; i < stack.size();) {
        std::size_t end = i + 1;
        while (end < stack.size() && stack[end]->type == stack[i]->type) ++end;
        ts::buffer<std::byte> bytes;
        auto const whole = generate::detail::stack(stack.subspan(i, end - i), bytes);
        out.push_back(generate::detail::with_storage(whole, [&]<class Storage>(Storage const& w) {
            if constexpr (ts::coded_storage<Storage>)
                if (x != form::float32)
                    return ts::erase(exec, ts::place(exec, ts::linear<Storage, ts::int8_per_group<32>>{w}, arena));
            return ts::erase(exec, ts::place(exec, ts::linear<Storage>{w}, arena));
        }));
        i = end;
    }
    return out;
}

} // namespace compress
