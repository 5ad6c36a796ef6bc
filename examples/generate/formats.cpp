// SPDX-License-Identifier: MIT
#include "projection.hpp"

#include <tessera/dispatch/gguf_coded.hpp>

namespace generate::detail {

namespace {

template <class Format, class List>
inline constexpr bool is_among = false;
template <class Format, class... Other>
inline constexpr bool is_among<Format, ts::format_list<Other...>> = (std::is_same_v<Format, Other> || ...);

template <class... List>
struct joined_lists;
template <class... Format>
struct joined_lists<ts::format_list<Format...>> {
    using type = ts::format_list<Format...>;
};
template <class... A, class... B, class... Rest>
struct joined_lists<ts::format_list<A...>, ts::format_list<B...>, Rest...> : joined_lists<ts::format_list<A..., B...>, Rest...> {};

/// The block formats of the library without those that have kernels of their own.
template <class List>
struct others;
template <class... Format>
struct others<ts::format_list<Format...>> {
    using type = typename joined_lists<
        std::conditional_t<is_among<Format, formats>, ts::format_list<>, ts::format_list<Format>>...>::type;
};

} // namespace

std::optional<other_blocks> as_other_blocks(ts::gguf::tensor_entry const& t) {
    return ts::gguf::as_any_coded(t, others<ts::gguf::block_formats>::type{});
}

} // namespace generate::detail
