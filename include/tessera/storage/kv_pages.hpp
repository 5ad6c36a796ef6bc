// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache in pages that many sequences share (Kwon et al. 2023, arXiv:2309.06180).
///
/// @verbatim
///     ts::kv_page_pool<ts::key<ts::fp16>, ts::value<ts::int8_per_token>> pool{pages, 16, kv_heads, head_dim};
///     ts::paged_sequence a{pool};
///     ts::append(exec, a, k, v);
///     auto b = a.fork();                    // shares all pages; whoever writes into a shared one copies it first
///     ts::attention(exec, q, a, out, ts::causal);
/// @endverbatim
///
/// The pool owns the memory, [kv_head][page][token of the page][row] in the formats of kv_cache.hpp, and counts how many
/// sequences hold each page. A sequence is its list of pages; it gives them back when it ends, and its pool must live
/// longer. Neither locks: sequences of one pool are changed by one thread at a time. A pool that has no page left is a
/// shape_error, and the sequence stays as it was. Formats that are chosen at run time:
///
///     ts::any_kv_page_pool pool{ts::standard_kv_formats::parse("int8,int4_g32"), 1000, 16, 8, 128};

#include "any_kv_cache.hpp"
#include "kv_cache.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Owner of pages of one layer in the memory of a contiguous cache: what all pools are.
template <class Cache>
class kv_pages {
public:
    using key_element = typename Cache::key_element;
    using value_element = typename Cache::value_element;
    using view_type = typename Cache::view_type;

    kv_pages(kv_pages const&) = delete;
    kv_pages& operator=(kv_pages const&) = delete;

    index_t pages() const noexcept { return static_cast<index_t>(references_.size()); }
    index_t free_pages() const noexcept { return static_cast<index_t>(free_.size()); }
    index_t page_size() const noexcept { return page_size_; }
    index_t kv_heads() const noexcept { return cache_.kv_heads(); }
    index_t key_dim() const noexcept { return cache_.key_dim(); }
    index_t value_dim() const noexcept { return cache_.value_dim(); }
    index_t bytes() const noexcept { return cache_.bytes(); }

    // What `paged_sequence` needs.

    kv_rows<key_element> key_rows() noexcept { return cache_.key_rows(); }
    kv_rows<value_element> value_rows() noexcept { return cache_.value_rows(); }
    /// What a sequence of these pages is read through.
    view_type view(std::int32_t const* page_list, index_t tokens) const noexcept {
        view_type v = cache_.view();
        v.tokens = tokens;
        v.pages = page_list;
        v.page_size = page_size_;
        v.slots = cache_.capacity();
        return v;
    }
    /// A page that nobody holds, held once from now on; there must be one.
    std::int32_t take() noexcept {
        std::int32_t const page = free_.back();
        free_.pop_back();
        references_[static_cast<std::size_t>(page)] = 1;
        return page;
    }
    void share(std::int32_t page) noexcept { ++references_[static_cast<std::size_t>(page)]; }
    void give_back(std::int32_t page) noexcept {
        if (--references_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
    }
    bool is_shared(std::int32_t page) const noexcept { return references_[static_cast<std::size_t>(page)] > 1; }
    void copy(std::int32_t from, std::int32_t to) noexcept {
        copy_rows(cache_.key_rows(), from, to);
        copy_rows(cache_.value_rows(), from, to);
    }

protected:
    /// @param cache of `slots(pages, page_size)` tokens
    kv_pages(index_t pages, index_t page_size, Cache&& cache) : page_size_{page_size}, cache_{std::move(cache)} {
        references_.resize(static_cast<std::size_t>(pages));
        free_.reserve(static_cast<std::size_t>(pages)); // so that giving a page back needs no memory
        for (index_t p = pages; p-- > 0;) free_.push_back(static_cast<std::int32_t>(p));
    }
    ~kv_pages() = default;
    static index_t slots(index_t pages, index_t page_size) {
        check::within("kv_page_pool", "pages", pages, 0, index_t{1} << 30);
        check::within("kv_page_pool", "page_size", page_size, 1, index_t{1} << 30);
        return pages * page_size;
    }

private:
    template <class T>
    void copy_rows(kv_rows<T> const& rows, std::int32_t from, std::int32_t to) const noexcept {
        for (index_t h = 0; h < kv_heads(); ++h) {
            std::copy_n(rows.row(h, from * page_size_), page_size_ * rows.slot_stride, rows.row(h, to * page_size_));
            if (rows.scales != nullptr)
                std::copy_n(rows.scale_row(h, from * page_size_), page_size_, rows.scale_row(h, to * page_size_));
        }
    }

    index_t page_size_;
    Cache cache_;
    std::vector<std::int32_t> references_;
    std::vector<std::int32_t> free_;
};

template <class Key, class Value>
class kv_page_pool;

/// Pages of formats that the type names.
template <class KeyFormat, class ValueFormat>
class kv_page_pool<key<KeyFormat>, value<ValueFormat>> : public kv_pages<kv_cache<key<KeyFormat>, value<ValueFormat>>> {
    using cache = kv_cache<key<KeyFormat>, value<ValueFormat>>;
    using base = kv_pages<cache>;

public:
    kv_page_pool(index_t pages, index_t page_size, index_t kv_heads, index_t head_dim)
        : kv_page_pool{pages, page_size, kv_heads, head_dim, head_dim} {}
    kv_page_pool(index_t pages, index_t page_size, index_t kv_heads, index_t key_dim, index_t value_dim)
        : base{pages, page_size, cache{base::slots(pages, page_size), kv_heads, key_dim, value_dim}} {}
};

/// Pages of formats chosen at run time.
template <class Formats>
class basic_any_kv_page_pool : public kv_pages<basic_any_kv_cache<Formats>> {
    using cache = basic_any_kv_cache<Formats>;
    using base = kv_pages<cache>;

public:
    basic_any_kv_page_pool(kv_choice formats, index_t pages, index_t page_size, index_t kv_heads, index_t head_dim)
        : basic_any_kv_page_pool{formats, pages, page_size, kv_heads, head_dim, head_dim} {}
    basic_any_kv_page_pool(kv_choice formats, index_t pages, index_t page_size, index_t kv_heads, index_t key_dim, index_t value_dim)
        : base{pages, page_size, cache{formats, base::slots(pages, page_size), kv_heads, key_dim, value_dim}} {}
};

/// Pages in any two of the standard formats.
using any_kv_page_pool = basic_any_kv_page_pool<standard_kv_formats>;

/// The tokens of one sequence; see the file comment.
template <class Pool>
class paged_sequence {
public:
    using key_element = typename Pool::key_element;
    using value_element = typename Pool::value_element;

    explicit paged_sequence(Pool& pool) noexcept : pool_{&pool} {}
    paged_sequence(paged_sequence&& other) noexcept
        : pool_{other.pool_}, pages_{std::move(other.pages_)}, tokens_{std::exchange(other.tokens_, 0)} {
        other.pages_.clear();
    }
    paged_sequence& operator=(paged_sequence&& other) noexcept {
        paged_sequence taken{std::move(other)};
        std::swap(pool_, taken.pool_);
        std::swap(pages_, taken.pages_);
        std::swap(tokens_, taken.tokens_);
        return *this;
    }
    ~paged_sequence() {
        for (std::int32_t const p : pages_) pool_->give_back(p);
    }

    /// Another sequence of the same tokens, in the same pages.
    paged_sequence fork() const {
        paged_sequence result{*pool_};
        result.pages_.assign(pages_.begin(), pages_.begin() + ceil_div(tokens_, pool_->page_size())); // see `reserve`
        result.tokens_ = tokens_;
        for (std::int32_t const p : result.pages_) pool_->share(p);
        return result;
    }

    index_t tokens() const noexcept { return tokens_; }
    index_t end_position() const noexcept { return tokens_; }
    index_t kv_heads() const noexcept { return pool_->kv_heads(); }
    index_t key_dim() const noexcept { return pool_->key_dim(); }
    index_t value_dim() const noexcept { return pool_->value_dim(); }
    std::vector<std::int32_t> const& pages() const noexcept { return pages_; }

    /// Valid until the sequence changes.
    auto view() const& noexcept { return pool_->view(pages_.data(), tokens_); }
    void view() const&& = delete;

    /// Forgets the newest tokens, so that `tokens` are left.
    void truncate(index_t tokens) {
        check::within("truncate", "tokens", tokens, 0, tokens_);
        forget(ceil_div(tokens, pool_->page_size()), static_cast<index_t>(pages_.size()));
        tokens_ = tokens;
    }
    /// Forgets tokens [first, last), multiples of the page size; those after them move up: the token that was number last is
    /// number first. Keys that carry their positions are turned by `rerotate`, if the model wants it (StreamingLLM does:
    /// arXiv:2309.17453).
    void drop(index_t first, index_t last) {
        check::within("drop", "last token", last, 0, tokens_);
        check::within("drop", "first token", first, 0, last);
        check::multiple("drop", "first token", first, pool_->page_size());
        check::multiple("drop", "last token", last, pool_->page_size());
        forget(first / pool_->page_size(), last / pool_->page_size());
        tokens_ -= last - first;
    }
    /// Keeps the first tokens ("attention sinks") and the last ones, in whole pages: at least `sinks` and `window` of them.
    void keep(index_t sinks, index_t window) {
        check::at_least("keep", "sinks", sinks, 0);
        check::at_least("keep", "window", window, 0);
        index_t const size = pool_->page_size();
        index_t const first = round_up(minimum(sinks, tokens_), size); // more than there are: all
        index_t const last = maximum(tokens_ - window, 0) / size * size;
        if (first < last) drop(first, last);
    }

    // What `append` and `rerotate` need.

    kv_rows<key_element> key_rows() noexcept { return pool_->key_rows(); }
    kv_rows<value_element> value_rows() noexcept { return pool_->value_rows(); }
    index_t slot(index_t position) const noexcept {
        index_t const size = pool_->page_size();
        return pages_[static_cast<std::size_t>(position / size)] * size + position % size;
    }
    /// Pages for n tokens more, which may be written; throws where the pool has none left.
    void reserve(index_t n) {
        check::within("append", "tokens", n, 0, index_t{1} << 60);
        index_t const size = pool_->page_size();
        // An `append` that failed after it had reserved left pages behind.
        forget(ceil_div(tokens_, size), static_cast<index_t>(pages_.size()));
        index_t const held = static_cast<index_t>(pages_.size());
        index_t const more = ceil_div(tokens_ + n, size) - held;
        bool const writes_last = n > 0 && tokens_ % size != 0;
        index_t const copies = writes_last && pool_->is_shared(pages_.back()) ? 1 : 0;
        check::within("append", "pages needed", more + copies, 0, pool_->free_pages());
        pages_.reserve(pages_.size() + static_cast<std::size_t>(more));
        if (copies != 0) own(held - 1);
        for (index_t i = 0; i < more; ++i) pages_.push_back(pool_->take());
    }
    /// Makes the pages of tokens [first, last) this sequence's alone; throws where the pool has none left for copies.
    void unshare(index_t first, index_t last) {
        check::within("unshare", "last token", last, 0, tokens_);
        check::within("unshare", "first token", first, 0, last);
        if (first == last) return;
        index_t const begin = first / pool_->page_size();
        index_t const end = ceil_div(last, pool_->page_size());
        index_t copies = 0;
        for (index_t p = begin; p < end; ++p) copies += pool_->is_shared(pages_[static_cast<std::size_t>(p)]);
        check::within("unshare", "pages needed", copies, 0, pool_->free_pages());
        for (index_t p = begin; p < end; ++p) own(p);
    }
    void advance(index_t n) noexcept { tokens_ += n; }

private:
    void own(index_t i) noexcept {
        std::int32_t& page = pages_[static_cast<std::size_t>(i)];
        if (!pool_->is_shared(page)) return;
        std::int32_t const copy = pool_->take();
        pool_->copy(page, copy);
        pool_->give_back(page);
        page = copy;
    }
    void forget(index_t first, index_t last) noexcept {
        for (index_t i = first; i < last; ++i) pool_->give_back(pages_[static_cast<std::size_t>(i)]);
        pages_.erase(pages_.begin() + first, pages_.begin() + last);
    }

    Pool* pool_;
    std::vector<std::int32_t> pages_;
    index_t tokens_ = 0;
};

} // namespace tessera::inline TESSERA_ABI
