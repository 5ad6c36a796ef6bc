// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The law of storage that is read by tiles: decoded tiles are the definition's bits, canonical and placed, and the laws of
/// stored matrices, forward and transposed.

#include "cases/vector_operands.hpp"
#include "unit/operators/operator_laws.hpp"

#include <tessera/quant/vector_place.hpp>

#include <vector>

namespace tessera_test {

/// Normal numbers by Box and Muller: `philox::normal` has no tails beyond 6, and errors of quantisers look at tails.
inline ts::matrix<float> normal_matrix(index_t n, index_t k, std::uint64_t seed = 1) {
    ts::matrix<float> w{n, k};
    ts::philox const random{seed};
    for (index_t i = 0; i < n * k; ++i) {
        auto const at = static_cast<std::uint64_t>(i);
        double const radius = std::sqrt(-2 * std::log((random.bits(2 * at) + 0.5) * 0x1p-32));
        w.data()[i] = static_cast<float>(radius * std::cos(6.283185307179586 * (random.bits(2 * at + 1) * 0x1p-32)));
    }
    return w;
}

template <class Q>
double mean_squared_error(Q const& q, ts::matrix<float> const& w) {
    ts::matrix<float> const d = decoded(q);
    double sum = 0;
    for (index_t i = 0; i < w.size(); ++i) sum += std::pow(double{w.data()[i]} - double{d.data()[i]}, 2);
    return sum / static_cast<double>(w.size());
}

/// A tile by the kernel, and the placed form's own definition, are the definition's bits.
template <class Arch, class Storage>
void check_decoded_bits(Storage const& w) {
    using exec = ts::cpu<Arch, ts::serial>;
    ts::matrix<float> const expected = decoded(w);
    auto const placed = ts::place(exec{}, ts::linear{w});
    // A product that is not fused, on processors without such an instruction, rounds once more.
    auto const is_same = [](float a, float b) {
#if defined(__FMA__) || defined(__aarch64__)
        return std::memcmp(&a, &b, sizeof a) == 0;
#else
        if constexpr (requires(Storage const& s) { s.bias(index_t{}); }) return std::abs(a - b) <= 0x1p-21f * (1.0f + std::abs(b));
        return std::memcmp(&a, &b, sizeof a) == 0;
#endif
    };
    auto const check_tile = [&](auto const& storage, index_t n0, index_t n1, index_t k0, index_t k1) {
        using decoder = ts::kernel<ts::op::decode, exec, std::remove_cvref_t<decltype(storage)>>;
        std::vector<std::byte> scratch(static_cast<std::size_t>(decoder::scratch_bytes(storage) + 64));
        auto* const aligned = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64) % 64;
        ts::matrix<float> tile{n1 - n0, k1 - k0};
        decoder::tile(storage, n0, n1, k0, k1, tile.data(), k1 - k0, aligned);
        bool same = true;
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) same = same && is_same(tile(n - n0, k - k0), expected(n, k));
        CHECK(same);
    };
    check_tile(w, 0, w.rows(), 0, w.cols());
    check_tile(placed.view().storage(), 0, w.rows(), 0, w.cols());
    check_tile(placed.view().storage(), w.rows() / 3, w.rows() - w.rows() / 4, w.cols() / 3, w.cols() - w.cols() / 5);
    ts::matrix<float> const again = decoded(placed.view().storage());
    CHECK(same_bits<float>(again.view(), expected.view()));
}

/// The laws of a storage made by `Make{n, k}` with a member view().
template <class Make, class Archs = best_arch>
void check_vector_law() {
    product_shape const shapes[] = {{0, 3, 5}, {2, 0, 7}, {2, 5, 0}, {1, 1, 1},    {3, 17, 31}, {9, 15, 33},  {1, 33, 130},
                                    {2, 7, 65}, {16, 4, 257}, {40, 66, 300}, {5, 131, 64}, {1, 48, 515}, {13, 20, 1030}};
    double const worst = check_both_ways<Make, Archs>(shapes, []<class Arch>(Arch, auto const& w, auto const&, auto const&) {
        if (w.rows() * w.cols() > 0) check_decoded_bits<Arch>(w.storage());
    });
    MESSAGE("worst error / tolerance " << worst);
}

} // namespace tessera_test
