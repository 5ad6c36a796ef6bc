// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Layout policies with the names and the meaning of std::mdspan: `layout_right` (row-major), `layout_left`
/// (column-major), `layout_stride` (any strides, in elements). A layout has a nested `mapping<Extents>` from an index
/// tuple to an offset.

#include "extents.hpp"

#include <cstddef>

namespace tessera::inline TESSERA_ABI {

/// Row-major: the last index is contiguous.
struct layout_right {
    template <class Extents>
    class mapping {
    public:
        using extents_type = Extents;
        constexpr mapping() noexcept = default;
        TESSERA_HOST_DEVICE constexpr explicit(false) mapping(Extents const& e) noexcept : extents_{e} {}

        TESSERA_HOST_DEVICE constexpr Extents const& extents() const noexcept { return extents_; }
        TESSERA_HOST_DEVICE constexpr index_t stride(std::size_t r) const noexcept {
            return extents_.size_between(r + 1, Extents::rank());
        }
        TESSERA_HOST_DEVICE constexpr index_t required_span_size() const noexcept { return extents_.size(); }
        static constexpr bool is_always_exhaustive() noexcept { return true; }

        template <class... Index>
        TESSERA_HOST_DEVICE constexpr index_t operator()(Index... index) const noexcept {
            index_t offset = 0;
            std::size_t r = 0;
            ((offset = offset * extents_.extent(r++) + static_cast<index_t>(index)), ...);
            return offset;
        }

    private:
        Extents extents_{};
    };
};

/// Column-major: the first index is contiguous.
struct layout_left {
    template <class Extents>
    class mapping {
    public:
        using extents_type = Extents;
        constexpr mapping() noexcept = default;
        TESSERA_HOST_DEVICE constexpr explicit(false) mapping(Extents const& e) noexcept : extents_{e} {}

        TESSERA_HOST_DEVICE constexpr Extents const& extents() const noexcept { return extents_; }
        TESSERA_HOST_DEVICE constexpr index_t stride(std::size_t r) const noexcept {
            return extents_.size_between(0, r);
        }
        TESSERA_HOST_DEVICE constexpr index_t required_span_size() const noexcept { return extents_.size(); }
        static constexpr bool is_always_exhaustive() noexcept { return true; }

        template <class... Index>
        TESSERA_HOST_DEVICE constexpr index_t operator()(Index... index) const noexcept {
            index_t offset = 0;
            std::size_t r = 0;
            ((offset += static_cast<index_t>(index) * stride(r++)), ...);
            return offset;
        }

    private:
        Extents extents_{};
    };
};

/// Any strides.
struct layout_stride {
    template <class Extents>
    class mapping {
    public:
        using extents_type = Extents;
        constexpr mapping() noexcept = default;

        /// One stride per dimension, in elements.
        TESSERA_HOST_DEVICE constexpr mapping(Extents const& e, index_t const* strides) noexcept : extents_{e} {
            for (std::size_t r = 0; r < Extents::rank(); ++r) strides_[r] = strides[r];
        }

        /// From any mapping of the same extents.
        template <class Other>
            requires requires(Other const& o) { o.stride(std::size_t{0}); }
        TESSERA_HOST_DEVICE constexpr explicit(false) mapping(Other const& other) noexcept {
            extents_ = detail_extents(other.extents());
            for (std::size_t r = 0; r < Extents::rank(); ++r) strides_[r] = other.stride(r);
        }

        TESSERA_HOST_DEVICE constexpr Extents const& extents() const noexcept { return extents_; }
        TESSERA_HOST_DEVICE constexpr index_t stride(std::size_t r) const noexcept { return strides_[r]; }
        TESSERA_HOST_DEVICE constexpr index_t required_span_size() const noexcept {
            if (extents_.size() == 0) return 0;
            index_t last = 1;
            for (std::size_t r = 0; r < Extents::rank(); ++r) last += (extents_.extent(r) - 1) * strides_[r];
            return last;
        }
        static constexpr bool is_always_exhaustive() noexcept { return false; }

        template <class... Index>
        TESSERA_HOST_DEVICE constexpr index_t operator()(Index... index) const noexcept {
            index_t offset = 0;
            std::size_t r = 0;
            ((offset += static_cast<index_t>(index) * strides_[r++]), ...);
            return offset;
        }

    private:
        template <class Other>
        TESSERA_HOST_DEVICE static constexpr Extents detail_extents(Other const& other) noexcept {
            return from_sequence(other, std::make_index_sequence<Extents::rank()>{});
        }
        template <class Other, std::size_t... R>
        TESSERA_HOST_DEVICE static constexpr Extents from_sequence(Other const& other,
                                                                   std::index_sequence<R...>) noexcept {
            return Extents{other.extent(R)...};
        }

        Extents extents_{};
        index_t strides_[Extents::rank() + (Extents::rank() == 0)]{};
    };
};

} // namespace tessera::inline TESSERA_ABI
