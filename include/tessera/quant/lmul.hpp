// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products with L-Mul in place of multiplication (arXiv:2410.00907; numerics/lmul.hpp is the definition):
///
///     apply(exec, linear{w, l_mul<bf16>{}}, x, y);              // any storage, on every backend of the host
///
/// It computes what hardware with integer adders would; on a processor with multiply-add it is slower than a product.
/// Placed operands and sums of operators work as ever; `transposed` multiplies as usual (its gradient is that of the product).

#include "../kernels/cpu/lmul.hpp"
#include "../kernels/ref/lmul.hpp"
#include "../operators/apply.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Format, class Exec>
struct forms_of_preparation<l_mul<Format>, Exec> {
    using type = type_list<l_mul_rows<Format>>;
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
