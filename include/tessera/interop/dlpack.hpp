// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// DLPack: arrays handed between libraries of one process without a copy. The structures are the standard's (version 1,
/// and the older one without a version); a pointer to another declaration of them is converted by reinterpret_cast.
///
///     auto const theirs = ts::dlpack::imported{pointer};              // owns: calls the deleter once
///     auto const w      = theirs.as_view<float const, 2>();           // checked; const where they say read-only
///
///     auto* const ours  = ts::dlpack::exported(std::move(tensor));    // a managed_tensor_versioned; they call its deleter
///
/// Source: the DLPack specification, dlpack.h.

#include "array_entry.hpp"

#include "../storage/tensor.hpp"

#include <limits>
#include <memory>
#include <utility>

namespace tessera::inline TESSERA_ABI::dlpack {

/// Where memory is; the standard has more.
enum class device_type : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };

/// DLDevice.
struct device {
    device_type type = device_type::cpu;
    std::int32_t id = 0;
};

/// Kinds of elements, DLDataTypeCode; the standard has more.
enum class type_code : std::uint8_t {
    signed_integer = 0,
    unsigned_integer = 1,
    floating = 2,
    bfloat = 4,
    complex = 5,
    boolean = 6,
    float8_e4m3fn = 10,
    float8_e4m3fnuz = 11,
    float8_e5m2 = 12,
    float8_e5m2fnuz = 13,
    float8_e8m0fnu = 14
};

/// DLDataType: the kind of an element, its bits, and the elements of a vector (1).
struct data_type {
    type_code code{};
    std::uint8_t bits = 0;
    std::uint16_t lanes = 1;
    friend constexpr bool operator==(data_type, data_type) noexcept = default;
};

/// DLTensor. Strides are in elements; null (before version 1.2) is C order.
struct array {
    void* data = nullptr;
    dlpack::device device{};
    std::int32_t ndim = 0;
    data_type dtype{};
    std::int64_t* shape = nullptr;
    std::int64_t* strides = nullptr;
    std::uint64_t byte_offset = 0;
};

/// DLManagedTensor.
struct managed_tensor {
    array tensor{};
    void* context = nullptr;
    void (*deleter)(managed_tensor*) = nullptr;
};

/// DLPackVersion.
struct version {
    std::uint32_t major = 1;
    std::uint32_t minor = 0;
};

/// Of `flags`: the memory must not be written.
inline constexpr std::uint64_t read_only_flag = 1;

/// DLManagedTensorVersioned.
struct managed_tensor_versioned {
    dlpack::version version{};
    void* context = nullptr;
    void (*deleter)(managed_tensor_versioned*) = nullptr;
    std::uint64_t flags = 0;
    array tensor{};
};

static_assert(sizeof(void*) != 8 ||
              (sizeof(array) == 48 && sizeof(managed_tensor) == 64 && sizeof(managed_tensor_versioned) == 80));

/// The type that DLPack has for T.
template <class T>
inline constexpr data_type data_type_of = [] {
    using enum type_code;
    constexpr auto bits = static_cast<std::uint8_t>(8 * sizeof(T));
    switch (element_type_of<T>) {
    case element_type::boolean: return data_type{boolean, bits};
    case element_type::bf16: return data_type{bfloat, bits};
    case element_type::f8_e4m3: return data_type{float8_e4m3fn, bits};
    case element_type::f8_e5m2: return data_type{float8_e5m2, bits};
    case element_type::f8_e8m0: return data_type{float8_e8m0fnu, bits};
    case element_type::f8_e4m3fnuz: return data_type{float8_e4m3fnuz, bits};
    case element_type::f8_e5m2fnuz: return data_type{float8_e5m2fnuz, bits};
    case element_type::f16:
    case element_type::f32:
    case element_type::f64: return data_type{floating, bits};
    case element_type::i8:
    case element_type::i16:
    case element_type::i32:
    case element_type::i64: return data_type{signed_integer, bits};
    default: return data_type{unsigned_integer, bits};
    }
}();

namespace detail {

[[noreturn]] TESSERA_COLD inline void refuse(std::string const& what) {
    tessera::detail::raise<shape_error>("tessera: dlpack: " + what);
}

inline std::string name_of(data_type t) {
    return "(code " + std::to_string(int(t.code)) + ", " + std::to_string(t.bits) + " bits, " + std::to_string(t.lanes) +
           " lanes)";
}

/// Shape and strides that reach no further than index_t; false otherwise.
template <std::size_t Rank>
bool read_shape(array const& a, std::array<std::uint64_t, Rank + 1>& dims, std::array<index_t, Rank + 1>& strides) {
    constexpr index_t most = std::numeric_limits<index_t>::max() / 64;
    index_t reach = 0;
    index_t next = 1;
    for (std::size_t d = Rank; d-- > 0;) {
        strides[d] = a.strides != nullptr ? a.strides[d] : next;
        auto const last = static_cast<index_t>(dims[d] == 0 ? 0 : dims[d] - 1);
        if (strides[d] > most || strides[d] < -most) return false;
        if (last != 0 && std::abs(strides[d]) > (most - reach) / last) return false;
        reach += std::abs(strides[d]) * last;
        next *= static_cast<index_t>(dims[d] == 0 ? 1 : dims[d]);
    }
    return true;
}

} // namespace detail

/// A view of foreign memory, after checks of device, type, rank, shape, strides and address; T may be const.
/// @throws shape_error, unsupported_error (memory that this processor cannot read)
template <class T, std::size_t Rank>
tensor_view<T, Rank> as_view(array const& a) {
    using detail::refuse;
    if (a.device.type != device_type::cpu && a.device.type != device_type::cuda_host &&
        a.device.type != device_type::cuda_managed)
        tessera::detail::raise<unsupported_error>("tessera: dlpack: device type is " + std::to_string(int(a.device.type)) +
                                                  ", expected memory of the host (1, 3 or 13)");
    if (a.dtype != data_type_of<std::remove_cv_t<T>>)
        refuse("type is " + detail::name_of(a.dtype) + ", expected " + detail::name_of(data_type_of<std::remove_cv_t<T>>));
    if (a.ndim != static_cast<std::int32_t>(Rank))
        refuse("number of dimensions is " + std::to_string(a.ndim) + ", expected " + std::to_string(Rank));
    if (Rank != 0 && a.shape == nullptr) refuse("shape is null, expected " + std::to_string(Rank) + " numbers");
    std::array<std::uint64_t, Rank + 1> dims{};
    std::array<index_t, Rank + 1> strides{};
    auto const wrong = [&](std::size_t d) {
        refuse("dimension " + std::to_string(d) + " is " + std::to_string(a.shape[d]) + ", expected one within the index type");
    };
    for (std::size_t d = 0; d < Rank; ++d) {
        if (a.shape[d] < 0) wrong(d);
        dims[d] = static_cast<std::uint64_t>(a.shape[d]);
    }
    auto const size = tessera::detail::count_elements(std::span{dims}.first(Rank), wrong);
    if (!detail::read_shape<Rank>(a, dims, strides)) refuse("strides reach beyond the index type");
    if (size != 0 && a.data == nullptr) refuse("data is null but has " + std::to_string(size) + " elements");
    auto* const data = a.data == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<std::byte*>(a.data) + a.byte_offset);
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0)
        refuse("address of the data is not a multiple of " + std::to_string(alignof(T)));
    return [&]<std::size_t... R>(std::index_sequence<R...>) {
        using mapping = typename tensor_view<T, Rank>::mapping_type;
        return tensor_view<T, Rank>{data, mapping{dynamic_extents<Rank>{static_cast<index_t>(dims[R])...}, strides.data()}};
    }(std::make_index_sequence<Rank>{});
}

/// Owns an array of another library; calls its deleter, once.
class imported {
public:
    /// Takes the array over. @throws shape_error when null
    explicit imported(managed_tensor* from)
        : array_{from == nullptr ? nullptr : &from->tensor}, managed_{from}, release_{&release<managed_tensor>} {
        if (from == nullptr) detail::refuse("managed tensor is null");
    }
    /// @throws unsupported_error for another major version, whose layout is unknown; the array is given back then
    explicit imported(managed_tensor_versioned* from) : managed_{from}, release_{&release<managed_tensor_versioned>} {
        if (from == nullptr) detail::refuse("managed tensor is null");
        if (from->version.major != 1) {
            auto const major = from->version.major;
            release_(from);
            tessera::detail::raise<unsupported_error>("tessera: dlpack: major version is " + std::to_string(major) +
                                                      ", expected 1");
        }
        array_ = &from->tensor;
        is_read_only_ = (from->flags & read_only_flag) != 0;
    }
    imported(imported&& other) noexcept
        : array_{std::exchange(other.array_, nullptr)}, managed_{std::exchange(other.managed_, nullptr)}, release_{other.release_},
          is_read_only_{other.is_read_only_} {}
    imported& operator=(imported&& other) noexcept {
        imported taken{std::move(other)};
        std::swap(array_, taken.array_);
        std::swap(managed_, taken.managed_);
        std::swap(release_, taken.release_);
        std::swap(is_read_only_, taken.is_read_only_);
        return *this;
    }
    ~imported() {
        if (managed_ != nullptr) release_(managed_);
    }

    /// @throws shape_error after a move
    dlpack::array const& array() const {
        if (array_ == nullptr) detail::refuse("managed tensor is null");
        return *array_;
    }
    bool is_read_only() const noexcept { return is_read_only_; }

    /// See dlpack::as_view; a view that writes is refused where the owner allows reading only.
    template <class T, std::size_t Rank>
    tensor_view<T, Rank> as_view() const& {
        if (!std::is_const_v<T> && is_read_only_) detail::refuse("the array is read-only, wanted one to write");
        return dlpack::as_view<T, Rank>(array());
    }
    template <class T, std::size_t Rank>
    void as_view() const&& = delete;

private:
    template <class Managed>
    static void release(void* p) noexcept {
        auto* const managed = static_cast<Managed*>(p);
        if (managed->deleter != nullptr) managed->deleter(managed);
    }

    dlpack::array const* array_ = nullptr;
    void* managed_;
    void (*release_)(void*) noexcept;
    bool is_read_only_ = false;
};

namespace detail {

/// What an exported array keeps alive.
template <class Managed, std::size_t Rank, class Owner>
struct exported_state {
    Managed managed{};
    std::array<std::int64_t, Rank + 1> shape{};
    std::array<std::int64_t, Rank + 1> strides{};
    Owner owner;
    explicit exported_state(Owner&& o) : owner{std::move(o)} {}
    static void release(Managed* m) noexcept { delete static_cast<exported_state*>(m->context); }
};

} // namespace detail

/// Exports a view; `owner` is moved along and destroyed by the deleter (a shared pointer, a tensor, or nothing: int{}).
/// `Managed` is managed_tensor_versioned or managed_tensor; the latter has no word for read-only, so T must not be const.
template <class Managed = managed_tensor_versioned, class T, class E, class L, class Owner>
Managed* exported(view<T, E, L, default_accessor<T>> const& v, Owner owner) {
    constexpr std::size_t Rank = E::rank();
    constexpr bool is_versioned = std::is_same_v<Managed, managed_tensor_versioned>;
    static_assert(is_versioned || std::is_same_v<Managed, managed_tensor>);
    static_assert(is_versioned || !std::is_const_v<T>, "tessera: dlpack: only a versioned array can be read-only");
    auto state = std::make_unique<detail::exported_state<Managed, Rank, Owner>>(std::move(owner));
    for (std::size_t d = 0; d < Rank; ++d) {
        state->shape[d] = v.extent(d);
        state->strides[d] = v.stride(d);
    }
    Managed& m = state->managed;
    m.tensor.data = const_cast<std::remove_cv_t<T>*>(v.data_handle());
    m.tensor.ndim = static_cast<std::int32_t>(Rank);
    m.tensor.dtype = data_type_of<std::remove_cv_t<T>>;
    m.tensor.shape = state->shape.data();
    m.tensor.strides = state->strides.data();
    if constexpr (is_versioned) m.flags = std::is_const_v<T> ? read_only_flag : 0;
    m.deleter = &detail::exported_state<Managed, Rank, Owner>::release;
    m.context = state.get();
    return &state.release()->managed;
}

/// Exports a tensor, which moves along.
template <class Managed = managed_tensor_versioned, class T, std::size_t Rank>
Managed* exported(tensor<T, Rank>&& owner) {
    tensor_view<T, Rank> const v = owner.view(); // a tensor's memory stays where it is when it moves
    return exported<Managed>(v, std::move(owner));
}

} // namespace tessera::inline TESSERA_ABI::dlpack
