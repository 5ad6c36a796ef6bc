// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes whose format is known at run time. `any_coded<Arch>` is a view of any coded storage, a block format of a file or a scheme, in
/// one type: what is compiled for a format is its packing and its decoder, a third of a second; the product is compiled once for all.
///
///     ts::any_coded<> const w{q.view()};                              // of blocks or a scheme, which must outlive it
///     auto const layer = ts::place(exec, ts::linear{w});              // owns: the panels of the format, codes moved as they are
///     ts::apply(exec, layer, x, y);
///     if (w.takes(ts::int8_per_group<32>{}))                          // the same panels by int8 rows of x
///         ts::apply(exec, ts::linear{layer.view().storage(), ts::int8_per_group<32>{}}, x, y);
///
/// Bytes in memory are those that the format's own type has when it is placed. A panel's columns are decoded to float32, 256 at a time, by a
/// call to the format's decoder, and multiplied like those of every storage that is read by tiles (kernels/cpu/vector.hpp), where x is
/// float32 (`as_is`) or bf16. By int8 rows of x they are multiplied as bytes (kernels/cpu/product_columns.hpp), if the format's own type
/// has such products, with the same bits as that; `linear` throws where it has not. Panels do not depend on the preparation. An
/// `any_operator` of the format's own type multiplies codes in registers, and many rows of int8 x in matrix tiles: faster, for the compile
/// time of all its kernels.
///
/// A file of placed operands keeps its panels; the hash it finds them by has the format's layout in it, so that a program may place an
/// operand by its own type and the next one by `any_coded`.
///
/// The view belongs to the architecture whose decoders it was made with; `reference` reads one of any.

#include "../kernels/cpu/product_columns.hpp"
#include "../operators/describe.hpp"
#include "../quant/vector_place.hpp"
#include "../storage/placed_key.hpp"

#include <cstddef>
#include <new>
#include <string>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Bytes of the view of a coded storage.
inline constexpr std::size_t coded_view_bytes = 128;

/// f(pointer, bytes) for each array of a coded storage; of blocks whose rows lie apart what is between them, too.
template <coded_storage Storage, class F>
void for_each_coded_array(Storage const& w, F const& f) {
    if constexpr (requires { w.for_each_array(f); }) {
        w.for_each_array(f);
    } else {
        index_t const blocks = w.rows() == 0 ? 0 : (w.rows() - 1) * w.row_stride() + w.blocks_per_row();
        f(w.data(), blocks * static_cast<index_t>(sizeof(typename Storage::block)));
    }
}

/// What can be done with a storage of unknown type, a view at `w`, and with its panels.
template <class Arch>
struct coded_actions {
    std::string (*name)();
    index_t (*bytes)(void const* w) noexcept;
    void (*tile)(void const* w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) noexcept; ///< the definition
    void (*arrays)(void const* w, void* context, void (*f)(void* context, void const* data, index_t bytes));
    placed_key (*key)(void const* w, content_check check); ///< of the format's own panels; null where these have no name
    index_t (*panel_bytes)(index_t cols) noexcept;
    void (*pack)(void const* w, index_t p, std::byte* out) noexcept;
    /// Columns [k0, k1) of a panel, k0 % 256 == 0: out[(k - k0) R + r]; may go on to column round_up(k1, 16).
    void (*decode)(std::byte const* panel, index_t cols, index_t k0, index_t k1, float* out) noexcept;
    integer_layout integers; ///< for products with int8 x
    /// Columns [k0, k1) for such products, see `decode_integers`; null where there are none.
    void (*decode_integers)(std::byte const* panel, index_t cols, index_t k0, index_t k1, int together, integer_columns<Arch>& out) noexcept;
};

/// Whether a format that `actions` describes (null: no storage) is multiplied by x prepared so.
template <class Arch, class Preparation>
bool takes_preparation(coded_actions<Arch> const* actions) noexcept {
    if constexpr (activation_group<Preparation> < 0)
        return std::is_same_v<Preparation, as_is> || std::is_same_v<Preparation, as_bf16>;
    else if constexpr (activation_group<Preparation> == 0)
        return actions == nullptr || actions->integers.is_served;
    else
        return actions == nullptr || actions->integers.takes_groups;
}
template <class Arch, class Preparation>
void check_preparation(coded_actions<Arch> const* actions) {
    if constexpr (activation_group<Preparation> >= 0) {
        if (takes_preparation<Arch, Preparation>(actions)) return;
        raise<unsupported_error>(
            "tessera: linear: codes of " + actions->name() +
            (actions->integers.is_served
                 ? " have no product with int8_per_group<N>, which needs groups of 16 or a multiple of 32 weights; use int8_per_token or as_is"
                 : " have no product with int8 x, which needs integers, or a format of at most 6 bits without NaN and infinity in groups "
                   "of 16 or a multiple of 32 weights; use as_is or as_bf16"));
    }
}

template <class Arch, coded_storage Storage>
struct coded_actions_of {
    static constexpr index_t R = simd::lanes<Arch>;
    using weights = prepacked<panel<R, 4>, Storage>;

    static Storage const& at(void const* w) noexcept { return *static_cast<Storage const*>(w); }
    static std::string name() { return storage_name<Storage>(); }
    static index_t bytes(void const* w) noexcept { return at(w).bytes(); }
    static void tile(void const* w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) noexcept {
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) out[(n - n0) * stride + k - k0] = static_cast<float>(at(w)(n, k));
    }
    static void arrays(void const* w, void* context, void (*f)(void*, void const*, index_t)) {
        for_each_coded_array(at(w), [&](void const* data, index_t bytes) { f(context, data, bytes); });
    }
    static index_t panel_bytes(index_t cols) noexcept { return weights{nullptr, R, cols}.panel_bytes(); }
    static void pack(void const* w, index_t p, std::byte* out) noexcept {
        pack_panel(at(w), weights{nullptr, at(w).rows(), at(w).cols()}, p, out);
    }
    static void decode(std::byte const* panel, index_t cols, index_t k0, index_t k1, float* out) noexcept {
        decode_panel<Arch>(weights{nullptr, R, cols}, panel, k0, minimum(round_up(k1, 16), cols), out);
    }
    static void decode_integers(std::byte const* panel, index_t cols, index_t k0, index_t k1, int together, integer_columns<Arch>& out) noexcept {
        detail::decode_integers<Arch>(weights{nullptr, R, cols}, panel, k0, k1, together, out);
    }
    static constexpr integer_layout integers = integer_layout_of<weights>();
    static constexpr auto integer_decoder() noexcept -> decltype(coded_actions<Arch>::decode_integers) {
        if constexpr (integers.is_served)
            return &decode_integers;
        else
            return nullptr;
    }
    static placed_key key(void const* w, content_check check) {
        if constexpr (placed_layout<weights>::is_named)
            return key_of(at(w), weights{nullptr, at(w).rows(), at(w).cols()}, check);
        else
            return {};
    }
    static constexpr coded_actions<Arch> actions{&name, &bytes, &tile, &arrays, placed_layout<weights>::is_named ? &key : nullptr,
                                                 &panel_bytes, &pack, &decode, integers, integer_decoder()};
};

} // namespace detail

/// See the file comment. A view (n, k).
template <class Arch = native_arch>
class any_coded {
public:
    using is_tile_storage = void;
    using has_run_time_format = void;
    using actions_type = detail::coded_actions<Arch>;

    any_coded() noexcept = default;
    template <coded_storage Storage>
        requires(!requires { typename Storage::layout; })
    explicit any_coded(Storage const& w) noexcept
        : actions_{&detail::coded_actions_of<Arch, Storage>::actions}, rows_{w.rows()}, cols_{w.cols()} {
        static_assert(std::is_trivially_copyable_v<Storage> && sizeof(Storage) <= detail::coded_view_bytes && alignof(Storage) <= 8);
        ::new (static_cast<void*>(view_)) Storage{w};
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    /// Stored bytes.
    index_t bytes() const noexcept { return actions_ == nullptr ? 0 : actions_->bytes(view_); }
    /// Of the format.
    std::string name() const { return actions_ == nullptr ? "nothing" : actions_->name(); }
    /// Whether `linear{w, Preparation{}}` is a product of this format: of int8 ones, where its own type has it.
    template <preparation Preparation>
    bool takes(Preparation) const noexcept {
        return detail::takes_preparation<Arch, Preparation>(actions_);
    }
    /// Throws unsupported_error, which names the format, where it is not.
    template <preparation Preparation>
    void require_preparation(Preparation) const {
        detail::check_preparation<Arch, Preparation>(actions_);
    }

    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        if (actions_ != nullptr) actions_->tile(view_, n0, n1, k0, k1, out, stride);
    }
    /// One decoded weight.
    float operator()(index_t n, index_t k) const noexcept {
        float value = 0;
        decode_tile(n, n + 1, k, k + 1, &value, 1);
        return value;
    }

    /// What a file of placed operands (storage/placed_cache.hpp) knows its panels by: what it knows those of the format's own type by, which
    /// are the same bytes. False where it keeps none (codes without a named format).
    bool has_placed_key() const noexcept { return actions_ != nullptr && actions_->key != nullptr; }
    placed_key placed_key_of(content_check check) const { return actions_->key(view_, check); }

    /// For kernels; null where there is no storage.
    actions_type const* actions() const noexcept { return actions_; }
    void const* typed_view() const noexcept { return view_; }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        if (actions_ != nullptr)
            actions_->arrays(view_, const_cast<F*>(&f), [](void* function, void const* data, index_t bytes) { (*static_cast<F const*>(function))(data, bytes); });
    }

private:
    actions_type const* actions_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    alignas(8) std::byte view_[detail::coded_view_bytes] = {};
};

/// The panels of a format that is known at run time: the bytes of `prepacked<panel<R, 4>, Storage>`. A view.
template <index_t R, class Arch>
class prepacked<panel<R, 4>, any_coded<Arch>> {
    static_assert(R == simd::lanes<Arch>);

public:
    using is_tile_storage = void;
    using has_run_time_format = void;
    using layout = panel<R, 4>;
    using storage = any_coded<Arch>;
    using actions_type = typename storage::actions_type;
    static constexpr index_t panel_rows = R;

    prepacked() noexcept = default;
    prepacked(std::byte const* data, storage const& shape) noexcept
        : data_{data}, actions_{shape.actions()}, rows_{shape.rows()}, cols_{shape.cols()},
          panel_bytes_{cols_ == 0 ? 0 : actions_->panel_bytes(cols_)} {}
    prepacked(std::byte const* data, prepacked const& shape) noexcept : prepacked{shape} { data_ = data; }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    std::byte const* data() const noexcept { return data_; }
    index_t panels() const noexcept { return cols_ == 0 ? 0 : ceil_div(rows_, R); }
    index_t panel_bytes() const noexcept { return panel_bytes_; }
    static constexpr index_t shared_bytes() noexcept { return 0; }
    index_t bytes() const noexcept { return panels() * panel_bytes_; }
    std::byte const* panel_data(index_t p) const noexcept { return data_ + p * panel_bytes_; }
    std::string name() const { return actions_ == nullptr ? "nothing" : actions_->name(); }
    actions_type const* actions() const noexcept { return actions_; }
    /// As for what is not placed.
    template <preparation Preparation>
    bool takes(Preparation) const noexcept {
        return detail::takes_preparation<Arch, Preparation>(actions_);
    }
    template <preparation Preparation>
    void require_preparation(Preparation) const {
        detail::check_preparation<Arch, Preparation>(actions_);
    }

    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        alignas(64) float columns[detail::decoded_columns * R];
        for (index_t p = n0 / R; p * R < n1 && k0 < k1; ++p)
            for (index_t first = k0 / detail::decoded_columns * detail::decoded_columns; first < k1; first += detail::decoded_columns) {
                index_t const last = minimum(first + detail::decoded_columns, k1);
                actions_->decode(panel_data(p), cols_, first, last, columns);
                for (index_t n = maximum(n0, p * R); n < minimum(n1, (p + 1) * R); ++n)
                    for (index_t k = maximum(k0, first); k < last; ++k) out[(n - n0) * stride + k - k0] = columns[(k - first) * R + n % R];
            }
    }
    template <class F>
    void for_each_array(F const& f) const {
        f(data_, bytes());
    }

private:
    std::byte const* data_ = nullptr;
    actions_type const* actions_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t panel_bytes_ = 0;
};

/// Panels share nothing.
template <index_t R, class Arch>
void pack_shared(any_coded<Arch> const&, prepacked<panel<R, 4>, any_coded<Arch>> const&, std::byte*) noexcept {}

/// Writes panel p at `out`.
template <index_t R, class Arch>
void pack_panel(any_coded<Arch> const& w, prepacked<panel<R, 4>, any_coded<Arch>> const&, index_t p, std::byte* out) noexcept {
    w.actions()->pack(w.typed_view(), p, out);
}

namespace detail {

template <class Arch, index_t R>
struct panel_decoder<Arch, prepacked<panel<R, 4>, any_coded<Arch>>> {
    using weights = prepacked<panel<R, 4>, any_coded<Arch>>;
    static constexpr bool is_placed = true;

    static weights shape(weights const& w, std::byte const* data) noexcept { return weights{data, w}; }
    static index_t scratch_bytes(weights const&) noexcept { return 0; }
    panel_decoder(weights const& w, std::byte*) noexcept : w_{w} {}
    void start(index_t p) noexcept { start_at(w_.panel_data(p), p); }
    void start_at(std::byte const* panel, index_t) noexcept { panel_ = panel; }
    void decode(index_t k0, index_t k1, float* out) const noexcept { w_.actions()->decode(panel_, w_.cols(), k0, k1, out); }
    static std::string name(weights const& w) { return w.name() + " codes, panel<" + std::to_string(R) + ", 4>"; }

private:
    weights w_;
    std::byte const* panel_ = nullptr;
};

template <class Arch, class Other>
struct panel_decoder<Arch, any_coded<Other>> {
    static_assert(std::is_same_v<Arch, Other>, "tessera: any_coded<Arch>: its decoders are another architecture's than the policy's");
};
template <class Arch>
struct panel_decoder<Arch, any_coded<Arch>> : packing_decoder<Arch, any_coded<Arch>, prepacked<panel<simd::lanes<Arch>, 4>, any_coded<Arch>>> {
    using packing_decoder<Arch, any_coded<Arch>, prepacked<panel<simd::lanes<Arch>, 4>, any_coded<Arch>>>::packing_decoder;
};

} // namespace detail

/// Products with int8 x: bytes and scales by the format's decoder, dot products by one kernel.
template <class Arch, class Parallel, detail::run_time_coded_storage Storage, class Preparation>
    requires(tile_storage<Storage> && detail::activation_group<Preparation> >= 0)
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, Preparation>;
    using decoder = detail::panel_decoder<Arch, Storage>;
    using weights = typename decoder::weights;
    using form = int8_rows<detail::activation_group<Preparation>, 16>;
    using forms = type_list<form>;
    using product = detail::integer_product<Arch, form>;
    struct state {};
    static constexpr index_t R = simd::lanes<Arch>;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept {
        if (w.cols() == 0) return 0;
        return 2 * packed_bytes(w) + product::scratch_bytes(w.storage().actions()->integers, w.cols(), tile.m);
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task, std::byte* scratch) noexcept {
        if (w.cols() == 0) return;
        auto const& actions = *w.storage().actions();
        product const of_rows{actions.integers, inputs.template get<form>(), task.m0, task.m1, scratch + 2 * packed_bytes(w)};
        auto const decode = [&](std::byte const* panel, index_t k0, index_t k1, int together, typename product::columns& out) noexcept {
            actions.decode_integers(panel, w.cols(), k0, k1, together, out);
        };
        index_t const last = ceil_div(task.n1, R);
        for (index_t p = task.n0 / R; p < last; p += 2) {
            int const panels = p + 1 < last ? 2 : 1;
            std::byte const* panel[2] = {stage(w, p, scratch), nullptr};
            if (panels == 2) panel[1] = stage(w, p + 1, scratch + packed_bytes(w));
            of_rows.run(panel, panels, decode, [&](int q, index_t m, simd::floats<Arch> const& value) noexcept {
                detail::add_to_task<Arch>(task, m, (p + q) * R, value);
            });
        }
    }

    static std::string describe(operand const& w, index_t) {
        return decoder::name(w.storage()) + ", bytes of decoded columns by " + simd::dot4_name<Arch>;
    }

private:
    static index_t packed_bytes(operand const& w) noexcept {
        return decoder::is_placed ? 0 : round_up(decoder::shape(w.storage(), nullptr).panel_bytes(), config::cache_line);
    }
    static std::byte const* stage(operand const& w, index_t p, [[maybe_unused]] std::byte* scratch) noexcept {
        if constexpr (decoder::is_placed) {
            return w.storage().panel_data(p);
        } else {
            pack_panel(w.storage(), decoder::shape(w.storage(), nullptr), p, scratch);
            return scratch;
        }
    }
};

/// Few elements of what is not placed, as a row of an embedding, are decoded by the definition: packing panels would take longer.
template <class Arch, class Parallel>
struct kernel<op::decode, cpu<Arch, Parallel>, any_coded<Arch>> {
    static index_t scratch_bytes(any_coded<Arch> const&) noexcept { return 0; }
    static void tile(any_coded<Arch> const& w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride, std::byte*) noexcept {
        w.decode_tile(n0, n1, k0, k1, out, stride);
    }
};

} // namespace tessera::inline TESSERA_ABI
