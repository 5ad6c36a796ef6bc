// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The 6- and 4-bit floats of OCP Microscaling 1.0: numbers only; overflow and infinity saturate.
///
///     name   bias  largest  smallest normal, subnormal
///     e3m2      3       28  2^-2, 2^-4
///     e2m3      1      7.5  1, 2^-3
///     e2m1      1        6  1, 2^-1

#include "../core/macros.hpp"
#include "float_format.hpp"

namespace tessera::inline TESSERA_ABI {

/// The floats of the file comment.
using e3m2 = minifloat<3, 2, specials::finite>;
using e2m3 = minifloat<2, 3, specials::finite>;
using e2m1 = minifloat<2, 1, specials::finite>;

static_assert(element_format<e3m2> && element_format<e2m3> && element_format<e2m1>);

} // namespace tessera::inline TESSERA_ABI
