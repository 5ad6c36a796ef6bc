// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Vector codes as a leaf of the operator algebra: `linear{pvq_matrix}`, of views or owners.

#include "../storage/pvq_matrix.hpp"
#include "operand.hpp"

namespace tessera::inline TESSERA_ABI::detail {

template <class Format, class Gain>
struct as_storage<pvq_matrix<Format, Gain>> {
    using type = pvq_matrix<Format, Gain>;
};

} // namespace tessera::inline TESSERA_ABI::detail
