// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Scales, minima and zero points of a panel's groups (storage/prepacked.hpp) in registers, one lane a row: as float32, or as the
/// integers of two levels that a record of small groups holds.

#include "../../simd/decode.hpp"
#include "../../storage/prepacked.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI::detail {

/// The integers of two levels of a group of a panel whose groups share a record, in both 16-bit halves of a lane (Narrow) or
/// as lanes.
template <class Arch, class Weights, bool Narrow = false>
TESSERA_FORCE_INLINE simd::ints<Arch> joined_levels(std::byte const* record) noexcept {
    using type = std::conditional_t<Weights::packs_minima, std::uint8_t, std::int8_t>;
    if constexpr (Narrow)
        return simd::load_byte_pairs<Arch>(reinterpret_cast<type const*>(record));
    else
        return simd::load_byte_lanes<Arch>(reinterpret_cast<type const*>(record));
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::ints<Arch> joined_scales(simd::ints<Arch> const& levels) noexcept {
    return Weights::packs_minima ? levels & simd::ints<Arch>(0x000f000f) : levels;
}
template <class Arch, bool Narrow = false>
TESSERA_FORCE_INLINE simd::floats<Arch> joined_minima(simd::ints<Arch> const& levels) noexcept {
    return xsimd::to_float(levels >> (Narrow ? 20 : 4));
}
/// The super scales and minima that are above.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> super_scales(std::byte const* super) noexcept {
    return simd::load_or_broadcast<Arch, Weights::shares_super_scales>(reinterpret_cast<typename Weights::super_scale_type const*>(super));
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> super_minima(std::byte const* super) noexcept {
    return super_scales<Arch, Weights>(super + Weights::super_scale_bytes);
}

/// Scales and minima of groups of a panel as float32, one lane a row: what is above a group's own is loaded once for all groups under
/// it. Products of two levels are exact.
template <class Arch, class Weights>
class group_factors {
    using source = typename Weights::source;
    using floats = simd::floats<Arch>;
    static constexpr bool has_supers = Weights::super_groups > 0;

public:
    /// Of group g and those under the same super scale.
    TESSERA_FORCE_INLINE void load(Weights const& w, std::byte const* panel, index_t g) noexcept {
        if constexpr (has_supers) {
            super_scale_ = super_scales<Arch, Weights>(panel + w.super_offset(g));
            if constexpr (source::offset == offset_kind::minimum) super_minimum_ = super_minima<Arch, Weights>(panel + w.super_offset(g));
        }
    }
    /// The group after the last under the same super scale as group g.
    static constexpr index_t end(index_t g, index_t last) noexcept {
        return has_supers ? minimum(last, (g / maximum(Weights::super_groups, 1) + 1) * Weights::super_groups) : last;
    }
    /// Of the group whose own are at `at`.
    TESSERA_FORCE_INLINE floats scales(std::byte const* at) const noexcept {
        if constexpr (Weights::joins_groups) {
            return xsimd::to_float(joined_scales<Arch, Weights>(joined_levels<Arch, Weights>(at))) * super_scale_;
        } else {
            auto const scales = simd::load_or_broadcast<Arch, Weights::shares_scales>(reinterpret_cast<typename Weights::scale_type const*>(at));
            if constexpr (has_supers)
                return scales * super_scale_;
            else
                return scales;
        }
    }
    /// The same as factors of integer sums.
    TESSERA_FORCE_INLINE floats integer_scales(std::byte const* at) const noexcept {
        constexpr float unit = integer_codes<source>::unit;
        if constexpr (unit == 1.0f)
            return scales(at);
        else
            return scales(at) * floats(unit);
    }
    /// The same of minima.
    TESSERA_FORCE_INLINE floats minima(std::byte const* at) const noexcept {
        if constexpr (Weights::packs_minima) {
            return joined_minima<Arch>(joined_levels<Arch, Weights>(at)) * super_minimum_;
        } else {
            auto const minima = simd::load<Arch>(reinterpret_cast<typename Weights::scale_type const*>(at + Weights::scale_bytes));
            if constexpr (has_supers)
                return minima * super_minimum_;
            else
                return minima;
        }
    }

private:
    struct none {};
    using level = std::conditional_t<has_supers, floats, none>;
    level super_scale_, super_minimum_;
};
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::ints<Arch> zero_points_at(std::byte const* scales) noexcept {
    if constexpr (Weights::shares_scales) return simd::ints<Arch>(static_cast<std::uint8_t>(scales[Weights::scale_bytes]));
    return simd::load_byte_lanes<Arch>(reinterpret_cast<std::uint8_t const*>(scales + Weights::scale_bytes));
}
/// The same of one group.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE group_factors<Arch, Weights> factors_of(Weights const& w, std::byte const* panel, index_t g) noexcept {
    group_factors<Arch, Weights> factors;
    factors.load(w, panel, g);
    return factors;
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> group_scales(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return factors_of<Arch>(w, panel, g).scales(panel + w.scales_offset(g));
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> integer_scales(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return factors_of<Arch>(w, panel, g).integer_scales(panel + w.scales_offset(g));
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> group_minima(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return factors_of<Arch>(w, panel, g).minima(panel + w.scales_offset(g));
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::ints<Arch> group_zero_points(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return zero_points_at<Arch, Weights>(panel + w.scales_offset(g));
}

} // namespace tessera::inline TESSERA_ABI::detail
