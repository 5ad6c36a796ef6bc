// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Embedding: rows of a table by their index. The table may be stored in any way that decodes: dense (float, fp16, bf16),
/// quantised, blocks of a GGUF file, prepacked; or be a leaf of the operator algebra, `linear{...}`, so that a model with
/// tied embeddings has one operand for both ends. Values are those that the storage decodes to, rounded once where y is
/// narrower than float.

#include "../kernels/cpu/embedding.hpp"
#include "../kernels/operand.hpp"
#include "../kernels/ref/embedding.hpp"
#include "../operators/aliasing.hpp"
#include "arguments.hpp"

#include <concepts>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// What is stored behind an argument: a leaf's storage, a dense view of an owner, or the storage itself.
template <class Storage, class Preparation>
constexpr Storage const& table_of(linear<Storage, Preparation> const& table) noexcept {
    return table.storage();
}
template <class Table>
constexpr auto table_of(Table const& table) noexcept {
    return linear{table}.storage();
}

template <class V>
concept index_vector = is_view<std::remove_cvref_t<V>> && std::remove_cvref_t<V>::rank() == 1 &&
                       std::integral<typename std::remove_cvref_t<V>::value_type>;

[[noreturn]] TESSERA_COLD inline void raise_id(index_t at, index_t id, index_t vocabulary) {
    raise<shape_error>("tessera: embedding: ids[" + std::to_string(at) + "] is " + std::to_string(id) +
                       ", expected 0 to " + std::to_string(vocabulary - 1) + " (the table has " +
                       std::to_string(vocabulary) + " rows)");
}

} // namespace detail

/// Row t of y is row ids[t] of the table.
template <execution_policy Exec, class Table>
void embedding(Exec const& exec,
               Table const& table,                   // (vocabulary, n)
               detail::index_vector auto const& ids, // (tokens)
               matrix_argument auto&& y) {           // (tokens, n)
    detail::require_backend<Exec>();
    auto const rows = detail::table_of(table);
    auto const to = detail::output(y);
    using storage = std::remove_const_t<decltype(rows)>;
    using id_type = typename std::remove_cvref_t<decltype(ids)>::value_type;
    index_t const vocabulary = detail::storage_rows(rows);
    check::equal("embedding", "rows of y", to.extent(0), ids.extent(0), "number of ids");
    check::equal("embedding", "columns of y", to.extent(1), detail::storage_columns(rows), "columns of the table");
    check::elements("embedding", "ids", ids);
    detail::check_output_rows("embedding", "y", to);
    if constexpr (detail::is_view<storage>) detail::check_rows("embedding", "table", rows);
    detail::check_storage_apart("embedding", "table", rows, "y", footprint_of(to));
    check::no_overlap("embedding", "ids", footprint_of(ids), "y", footprint_of(to));
    for (index_t t = 0; t < ids.extent(0); ++t)
        if (!std::in_range<index_t>(ids[t]) || static_cast<index_t>(ids[t]) < 0 ||
            static_cast<index_t>(ids[t]) >= vocabulary)
            detail::raise_id(t, static_cast<index_t>(ids[t]), vocabulary);
    using table_kernel = kernel<op::embedding, Exec, storage>;
    vector_view<id_type const> const which{ids};
    if constexpr (std::same_as<Exec, reference>) {
        table_kernel::run(exec, rows, which, to);
    } else {
        using element = typename decltype(to)::value_type;
        workspace_scope scope{exec.scratch()};
        index_t const bytes = exec.parallel().concurrency() * table_kernel::template scratch_bytes<element>(rows);
        table_kernel::run(exec, rows, which, to, scope.carve<std::byte>(bytes));
    }
}

} // namespace tessera::inline TESSERA_ABI
