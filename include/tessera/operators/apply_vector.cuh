// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place` of storage without a code with a scale for every weight on CUDA devices; products are those of the panels it becomes, forward and
/// transposed, with any number of rows of x.
///
///     auto const layer = place(exec, linear{pyramids});    // `pvq_matrix`: its integers, as codes of 2 to 8 bits, and a scale a group
///     auto const other = place(exec, linear{vectors});     // look-ups (tables that are data, HIGGS, nested codes), VPTQ: their codes and tables
///
/// Pyramids take what their integers take: decoding an index is a walk through a table of wide integers, which a product's threads
/// have no time for. Look-ups (storage/device_table.hpp) and vectors of columns (storage/device_codebooks.hpp) are decoded in registers; they
/// multiply x `as_is` (fp16 tables: two products of bf16 for a weight, others three) or `as_bf16` (one). Bytes on the device: codes in the
/// next of 1, 2, 4, 8 or 16 bits; VPTQ's indices in 1 or 2 bytes each. Groups of a `vector_grid` whose columns are no multiple of 64 are padded
/// to it. Any other `tile_storage`, and look-ups of more than 16 bits or of other dimensions than 1, 2, 4 and 8, become the float32 numbers that
/// they stand for.
///
/// Numbers of tables that are not finite make the sums so of the rows that have them. They reach other rows only as padding, which meets
/// x = 0: a table without a finite entry, what is left of a row's last point, and a first centroid where VPTQ's columns are padded.
///
/// Errors: those of `place`; 2^24 rows or more of VPTQ (shape_error). The host holds the device's bytes meanwhile, of pyramids an int8 for every
/// weight besides, of what becomes numbers a float.

#include "../kernels/pvq_operand.hpp"
#include "../kernels/cuda/decode_codebooks.cuh"
#include "../kernels/cuda/decode_table.cuh"
#include "../kernels/vector_operand.hpp"
#include "apply.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A decoded `pvq_matrix` on the host: integers (rows, groups, N), scales (rows, groups).
template <class Format, class Gain>
struct pvq_integers {
    using scale_type = typename Gain::scale_type;
    std::int8_t const* integers = nullptr;
    scale_type const* scales = nullptr;
    index_t row_count = 0;
    index_t column_count = 0;

    constexpr index_t rows() const noexcept { return row_count; }
    constexpr index_t cols() const noexcept { return column_count; }
    constexpr index_t groups() const noexcept { return ceil_div(column_count, Format::group); }
};

} // namespace detail

template <class Format, class Gain>
struct code_source<detail::pvq_integers<Format, Gain>> : code_source<pvq_matrix<Format, Gain>> {
    using storage = detail::pvq_integers<Format, Gain>;
    using code_source<pvq_matrix<Format, Gain>>::zero;

    static constexpr std::uint32_t code(storage const& w, index_t n, index_t k) noexcept {
        return static_cast<std::uint32_t>(w.integers[n * w.groups() * Format::group + k] + zero);
    }
    static constexpr float scale(storage const& w, index_t n, index_t k) noexcept {
        return static_cast<float>(w.scales[n * w.groups() + k / Format::group]);
    }
    static constexpr float minimum(storage const&, index_t, index_t) noexcept { return 0.0f; }
    static constexpr int zero_point(storage const&, index_t, index_t) noexcept { return 0; }
};

template <int Sm, class Format, class Gain, class Preparation>
class placed<cuda<Sm>, linear<pvq_matrix<Format, Gain>, Preparation>> {
    using integers = detail::pvq_integers<Format, Gain>;
    using inner = placed<cuda<Sm>, linear<integers, Preparation>>;

public:
    using operator_type = typename inner::operator_type;

    placed(cuda<Sm> const& exec, linear<pvq_matrix<Format, Gain>, Preparation> const& w, memory_arena* = nullptr) : inner_{made(exec, w.storage())} {}

    operator_type view() const& { return inner_.view(); }
    void view() const&& = delete;
    index_t bytes() const noexcept { return inner_.bytes(); }

private:
    static inner made(cuda<Sm> const& exec, pvq_matrix<Format, Gain> const& w) {
        index_t const groups = w.groups();
        buffer<std::int8_t> numbers{w.rows() * groups * Format::group};
        buffer<typename integers::scale_type> scales{w.rows() * groups};
        parallel_for(default_parallel{}, w.rows(), 1, [&](index_t first, index_t last, index_t) noexcept {
            for (index_t i = first * groups; i < last * groups; ++i)
                scales[i] = w.group(i / groups, i % groups, numbers.data() + i * Format::group);
        });
        return {exec, linear<integers, Preparation>{integers{numbers.data(), scales.data(), w.rows(), w.cols()}, Preparation{}}};
    }

    inner inner_;
};

namespace detail {

template <class Preparation>
constexpr void require_float_preparation() noexcept {
    static_assert(std::is_same_v<Preparation, as_is> || std::is_same_v<Preparation, as_bf16>,
                  "tessera: place: cuda<Sm> multiplies vector codes and tables by x as it is or in bf16");
}

/// Storage that has device panels with tables of its own.
template <class Storage>
concept device_table_storage = tile_storage<Storage> && (device_lookup<Storage> || std::is_same_v<Storage, vector_codebooks>);

} // namespace detail

template <int Sm, detail::device_table_storage Storage, class Preparation>
class placed<cuda<Sm>, linear<Storage, Preparation>> {
    static_assert((detail::require_float_preparation<Preparation>(), true));
    using panels = prepacked<device_panel, Storage>;

public:
    using operator_type = linear<panels, Preparation>;

    placed(cuda<Sm> const& exec, linear<Storage, Preparation> const& w, memory_arena* = nullptr) : shape_{panels{nullptr, w.storage()}} {
        detail::check_device<Sm>("place");
        panels const to = shape_;
        memory_ = detail::packed_memory(exec, to.bytes(), to.tiles(),
                                        [&](index_t t, std::byte* host) noexcept { detail::pack_device_tile(w.storage(), to, t, host); });
    }

    operator_type view() const& { return operator_type{panels{shape_}.at(memory_.data())}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return memory_.bytes(); }

private:
    detail::emptied_by_move<panels> shape_;
    device_buffer<std::byte> memory_;
};

template <int Sm, tile_storage Storage, class Preparation>
class placed<cuda<Sm>, linear<Storage, Preparation>> {
    static_assert((detail::require_float_preparation<Preparation>(), true));
    using inner = placed<cuda<Sm>, linear<matrix_view<float const>, Preparation>>;

public:
    using operator_type = typename inner::operator_type;

    placed(cuda<Sm> const& exec, linear<Storage, Preparation> const& w, memory_arena* = nullptr) : inner_{made(exec, w.storage())} {}

    operator_type view() const& { return inner_.view(); }
    void view() const&& = delete;
    index_t bytes() const noexcept { return inner_.bytes(); }

private:
    static inner made(cuda<Sm> const& exec, Storage const& w) {
        buffer<float> numbers{detail::saturated_product(w.rows(), w.cols())};
        parallel_for(default_parallel{}, w.rows(), 1, [&](index_t first, index_t last, index_t) noexcept {
            w.decode_tile(first, last, 0, w.cols(), numbers.data() + first * w.cols(), w.cols());
        });
        return {exec, linear<matrix_view<float const>, Preparation>{matrix_view<float const>{numbers.data(), w.rows(), w.cols()}, Preparation{}}};
    }

    inner inner_;
};

} // namespace tessera::inline TESSERA_ABI
