// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What `place` says of a stored matrix to an arena that may know its panels: their layout as text, and a hash of that, of the
/// shape and of the source's bytes. Rows of a strided matrix are hashed in order, so that where it lies does not matter.
///
/// Storage of which no such text is known (compressed rows, whose panels hold offsets that kernels trust; codes without a
/// named format) is packed each time.

#include "prepacked.hpp"

#include <concepts>
#include <string>

namespace tessera::inline TESSERA_ABI::detail {

template <class T>
constexpr char const* element_name() noexcept {
    if constexpr (std::same_as<T, float>)
        return "fp32";
    else
        return T::name;
}

/// The layout of placed storage as text: everything that decides about the panels besides shape and content.
template <class Weights>
struct placed_layout {
    static constexpr bool is_named = false;
};

template <index_t R, class T>
struct placed_layout<prepacked<panel<R, 1>, matrix_view<T const>>> {
    static constexpr bool is_named = true;
    static std::string text() { return std::string{element_name<T>()} + ", panel<" + std::to_string(R) + ", 1>"; }
};

template <index_t R, coded_storage Storage>
    requires requires { Storage::format::name; }
struct placed_layout<prepacked<panel<R, 4>, Storage>> {
    static constexpr bool is_named = true;
    static std::string text() {
        using weights = prepacked<panel<R, 4>, Storage>;
        using source = typename weights::source;
        std::string out = Storage::format::name;
        if constexpr (requires { typename Storage::scheme_type; }) {
            using granularity = typename Storage::scheme_type::granularity_type;
            out += ", blocks " + std::to_string(granularity::rows) + " x " + std::to_string(granularity::columns) + " of " +
                   Storage::scheme_type::scale_type::name;
        }
        auto const part = [&](char const* name, index_t value) { out += std::string{", "} + name + " " + std::to_string(value); };
        part("bits", source::bits);
        part("zero", source::zero);
        part("group", source::group);
        part("super", weights::super_groups);
        part("scale", static_cast<index_t>(sizeof(typename weights::scale_type)));
        part("offset", static_cast<index_t>(source::offset));
        return out + ", panel<" + std::to_string(R) + ", 4>";
    }
};

/// The source's bytes, in an order that its strides do not change.
template <class Storage>
void add_source(content_hash& hash, Storage const& w, content_check check) {
    auto const add = [&](void const* data, index_t bytes) { add_content(hash, data, bytes, check); };
    if constexpr (dense_storage<Storage>) {
        using element = typename Storage::value_type;
        constexpr auto size = static_cast<index_t>(sizeof(element));
        index_t const columns = w.extent(1);
        if (columns <= 1 || w.stride(1) == 1) {
            if (w.stride(0) == columns) return add(w.data_handle(), w.size() * size);
            for (index_t n = 0; n < w.extent(0); ++n) add(w.data_handle() + n * w.stride(0), columns * size);
            return;
        }
        for (index_t n = 0; n < w.extent(0); ++n)
            for (index_t k = 0; k < columns; ++k) hash.add(&w(n, k), size);
    } else if constexpr (requires { w.for_each_array(add); }) {
        w.for_each_array(add);
    } else if constexpr (requires { w.row_stride(); }) {
        index_t const row = w.blocks_per_row() * static_cast<index_t>(sizeof(typename Storage::block));
        if (w.row_stride() == w.blocks_per_row()) return add(w.data(), w.rows() * row);
        for (index_t n = 0; n < w.rows(); ++n) add(w.row(n), row);
    } else {
        add(w.data(), w.bytes());
    }
}

/// Panels come with their layout's text in two ways, as what they are and as what they were packed from: both are the source.
template <class Weights, class Storage>
placed_key key_of(Storage const& source, Weights const& packed, content_check check) {
    placed_key key{{}, packed.rows(), packed.cols(), packed.bytes(), placed_layout<Weights>::text()};
    content_hash hash;
    hash.add(key.layout.data(), static_cast<index_t>(key.layout.size()));
    hash.add(std::same_as<Weights, Storage>).add(static_cast<std::uint64_t>(check));
    hash.add(static_cast<std::uint64_t>(key.rows)).add(static_cast<std::uint64_t>(key.cols));
    add_source(hash, source, check);
    key.id = hash.finish();
    return key;
}

/// An owner of panels for a source: of its own, in an arena, or of what the arena knows. Where `data()` is not null, they are
/// to be written.
template <class Owner, class Storage>
Owner place_in(memory_arena* arena, Storage const& source, index_t n, index_t k) {
    using weights = typename Owner::view_type;
    if (arena == nullptr) return Owner{n, k};
    weights const packed{nullptr, n, k};
    if constexpr (placed_layout<weights>::is_named)
        if (packed.bytes() > 0 && arena->source_check() != content_check::none)
            return Owner{n, k, arena->find_or_allocate(key_of(source, packed, arena->source_check()))};
    std::byte* const data = arena->allocate(packed.bytes());
    return Owner{n, k, placement{data, data}};
}

} // namespace tessera::inline TESSERA_ABI::detail
