// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Byte-level byte-pair encoding (the tokenizer of GPT-2) from the metadata of a GGUF file.
///
/// Text becomes tokens in three steps: special tokens are cut out where they stand; the rest is split into words by the
/// pre-tokenizer's pattern; each word starts as its bytes, and the adjacent pair that comes first in the file's list of
/// merges is joined until no pair of the list is left. Vocabularies spell a byte as a printable character (a space is
/// U+0120), so that the file's strings are valid UTF-8.

#include "unicode.hpp"

#include <tessera/interop/gguf.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace generate {

using token_id = std::int32_t;

/// What text that spells a control token is: the token, or just text (what a user typed).
enum class special_tokens { parse, as_text };

/// A piece of a text; several pieces are one text, but their origin decides about special tokens.
struct text_piece {
    std::string_view text;
    special_tokens special = special_tokens::parse;
};

/// What a tokenizer is made from; views of the file, or of a test's strings.
struct vocabulary {
    std::vector<std::string_view> tokens;
    std::vector<std::int32_t> types;      ///< of the tokens: 1 normal, 3 control, 4 user-defined
    std::vector<std::string_view> merges; ///< "left right", the first joins first
    std::string_view pre_tokenizer = "gpt-2";
    token_id begin = -1; ///< of a text; -1: none
    token_id end = -1;
    bool adds_begin = false;
};

/// Reads `tokenizer.ggml.*`.
/// @throws tessera::format_error, tessera::unsupported_error when the file has another kind of tokenizer
inline vocabulary read_vocabulary(tessera::gguf::file const& file) {
    using tessera::gguf::array_view;
    auto const model = file.get<std::string_view>("tokenizer.ggml.model");
    if (model != "gpt2")
        tessera::detail::raise<tessera::unsupported_error>("tokenizer: model is " + std::string{model} +
                                                           ", expected gpt2 (byte-level BPE)");
    auto const tokens = file.get<array_view<std::string_view>>("tokenizer.ggml.tokens");
    auto const types = file.get<array_view<std::int32_t>>("tokenizer.ggml.token_type");
    auto const merges = file.get<array_view<std::string_view>>("tokenizer.ggml.merges");
    vocabulary v;
    v.tokens.assign(tokens.begin(), tokens.end());
    v.types.assign(types.begin(), types.end());
    v.merges.assign(merges.begin(), merges.end());
    v.pre_tokenizer = file.get_or<std::string_view>("tokenizer.ggml.pre", "gpt-2");
    v.begin = file.get_or<token_id>("tokenizer.ggml.bos_token_id", -1);
    v.end = file.get_or<token_id>("tokenizer.ggml.eos_token_id", -1);
    v.adds_begin = file.get_or<bool>("tokenizer.ggml.add_bos_token", false);
    return v;
}

/// How words are cut.
enum class pre_tokenizer {
    gpt2,         ///< 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    single_digits ///< each character of \p{N} stands alone, then as gpt2
};

namespace detail {

inline pre_tokenizer pre_tokenizer_named(std::string_view name) {
    if (name == "gpt-2" || name == "gpt2" || name == "default") return pre_tokenizer::gpt2;
    if (name == "smollm" || name == "starcoder" || name == "refact" || name == "command-r")
        return pre_tokenizer::single_digits;
    tessera::detail::raise<tessera::unsupported_error>("tokenizer: pre-tokenizer is " + std::string{name} +
                                                       ", expected gpt-2, default, smollm, starcoder, refact or "
                                                       "command-r");
}

/// Cuts a text into words as the pattern of `pre_tokenizer` does, without a regular expression engine. Bytes that are
/// no UTF-8 count as one character each of class other.
class word_splitter {
public:
    word_splitter(std::string_view text, pre_tokenizer kind) noexcept : text_{text}, kind_{kind} {}

    bool done() const noexcept { return at_ == text_.size(); }

    std::string_view next() noexcept {
        std::size_t const first = at_;
        at_ = end_of_word();
        return text_.substr(first, at_ - first);
    }

private:
    struct character {
        char_class what = char_class::other;
        std::size_t end = 0;
    };

    character read(std::size_t at) const noexcept {
        utf8_prefix const p = decode_utf8(text_.substr(at));
        if (p.what != utf8_prefix::kind::complete) return {char_class::other, at + 1};
        return {class_of(p.code), at + p.length};
    }

    /// The end of the longest run of `what` from `at`.
    std::size_t run(std::size_t at, char_class what) const noexcept {
        while (at != text_.size()) {
            character const c = read(at);
            if (c.what != what) break;
            at = c.end;
        }
        return at;
    }

    std::size_t end_of_contraction() const noexcept {
        for (std::string_view const s : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
            if (text_.substr(at_).starts_with(s)) return at_ + s.size();
        return at_;
    }

    std::size_t end_of_word() const noexcept {
        if (text_[at_] == '\'')
            if (std::size_t const end = end_of_contraction(); end != at_) return end;
        character const c = read(at_);
        if (kind_ == pre_tokenizer::single_digits && c.what == char_class::number) return c.end;
        if (c.what != char_class::space) return run(c.end, c.what);
        if (text_[at_] == ' ' && c.end != text_.size()) {
            character const next = read(c.end);
            bool const joins = next.what != char_class::space &&
                               !(kind_ == pre_tokenizer::single_digits && next.what == char_class::number);
            if (joins) return run(next.end, next.what);
        }
        return end_of_spaces(c.end);
    }

    /// \s+(?!\S)|\s+ : a run of spaces leaves its last one to the word that follows, unless it is the only one. Before
    /// a digit that stands alone there is no word that could take it.
    std::size_t end_of_spaces(std::size_t end) const noexcept {
        std::size_t last = at_;
        while (end != text_.size()) {
            character const c = read(end);
            if (c.what != char_class::space) {
                bool const alone = kind_ == pre_tokenizer::single_digits && c.what == char_class::number;
                return alone || last == at_ ? end : last;
            }
            last = end;
            end = c.end;
        }
        return end;
    }

    std::string_view text_;
    pre_tokenizer kind_;
    std::size_t at_ = 0;
};

/// The printable character that stands for a byte in vocabularies: itself where it is printable Latin-1, else the next
/// free one from U+0100 on.
inline std::array<std::uint32_t, 256> byte_alphabet() noexcept {
    std::array<std::uint32_t, 256> alphabet{};
    std::uint32_t next = 0x100;
    for (std::uint32_t b = 0; b < 256; ++b) {
        bool const printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        alphabet[b] = printable ? b : next++;
    }
    return alphabet;
}

} // namespace detail

/// Owns its tables; the vocabulary it is made from may go away.
class tokenizer {
public:
    /// @throws tessera::format_error when the vocabulary contradicts itself
    explicit tokenizer(vocabulary const& v);
    explicit tokenizer(tessera::gguf::file const& file) : tokenizer{read_vocabulary(file)} {}

    std::size_t size() const noexcept { return starts_.size() - 1; }
    token_id begin_token() const noexcept { return begin_; }
    token_id end_token() const noexcept { return end_; }
    /// Whether the model wants begin_token() in front of a text; `encode` does not add it.
    bool adds_begin_token() const noexcept { return adds_begin_; }

    /// The special token spelled `text`.
    std::optional<token_id> special(std::string_view text) const {
        for (token_id const id : specials_[first_byte(text)])
            if (bytes(id) == text) return id;
        return std::nullopt;
    }

    /// The bytes of a token; of a special one its spelling.
    /// @throws tessera::shape_error when there is no such token
    std::string_view bytes(token_id id) const {
        tessera::check::within("tokenizer", "token", id, 0, static_cast<tessera::index_t>(size()) - 1);
        auto const i = static_cast<std::size_t>(id);
        return std::string_view{text_}.substr(starts_[i], starts_[i + 1] - starts_[i]);
    }

    std::string decode(std::span<token_id const> ids) const {
        std::string out;
        for (token_id const id : ids) out += bytes(id);
        return out;
    }

    std::vector<token_id> encode(std::string_view text, special_tokens special = special_tokens::parse) const {
        text_piece const piece{text, special};
        return encode({&piece, 1});
    }

    /// The pieces are encoded as one text. Any bytes will do; bytes for which the vocabulary has no token (a few control
    /// characters in some models) are left out, as in the tokenizers library.
    std::vector<token_id> encode(std::span<text_piece const> pieces) const;

private:
    struct join {
        std::uint32_t rank;
        token_id result;
    };

    /// A piece of a word, linked to its neighbours; none: -1.
    struct symbol {
        token_id id;
        std::int32_t previous;
        std::int32_t next;
    };

    /// Joining symbols[left] with its successor. Lower rank first, then further left.
    struct candidate {
        std::uint32_t rank;
        std::int32_t left;
        token_id result;
        friend bool operator<(candidate const& a, candidate const& b) noexcept {
            return std::pair{a.rank, a.left} > std::pair{b.rank, b.left};
        }
    };

    /// Buffers that words share.
    struct scratch {
        std::vector<symbol> symbols;
        std::priority_queue<candidate> queue;
    };

    static std::size_t first_byte(std::string_view s) noexcept {
        return s.empty() ? 0 : static_cast<unsigned char>(s[0]);
    }

    static std::uint64_t key(token_id left, token_id right) noexcept {
        return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
    }

    join const* find_join(token_id left, token_id right) const {
        auto const at = joins_.find(key(left, right));
        return at == joins_.end() ? nullptr : &at->second;
    }

    void add_tokens(vocabulary const& v);
    void add_merges(vocabulary const& v);
    token_id longest_special(std::string_view text, special_tokens special) const;
    void encode_text(std::string_view text, scratch& s, std::vector<token_id>& out) const;
    void encode_word(std::string_view word, scratch& s, std::vector<token_id>& out) const;
    void push_candidate(scratch& s, std::int32_t left) const;

    std::string text_;                ///< the bytes of all tokens
    std::vector<std::size_t> starts_; ///< of each token in text_, and the end
    std::vector<bool> is_control_;
    std::array<std::vector<token_id>, 256> specials_; ///< control and user-defined tokens by first byte, longest first
    std::array<token_id, 256> byte_tokens_{};         ///< -1: the vocabulary has none
    std::unordered_map<std::uint64_t, join> joins_;
    pre_tokenizer pre_tokenizer_;
    token_id begin_;
    token_id end_;
    bool adds_begin_;
};

inline tokenizer::tokenizer(vocabulary const& v)
    : pre_tokenizer_{detail::pre_tokenizer_named(v.pre_tokenizer)}, begin_{v.begin}, end_{v.end},
      adds_begin_{v.adds_begin} {
    auto const fail = [](std::string const& what) {
        tessera::detail::raise<tessera::format_error>("tokenizer: " + what);
    };
    if (v.types.size() != v.tokens.size())
        fail(std::to_string(v.types.size()) + " token types for " + std::to_string(v.tokens.size()) + " tokens");
    auto const count = static_cast<std::int64_t>(v.tokens.size());
    for (token_id const id : {v.begin, v.end})
        if (id < -1 || id >= count)
            fail("special token " + std::to_string(id) + " of " + std::to_string(count) + " tokens");
    if (v.adds_begin && v.begin < 0) fail("a begin token is wanted and not named");
    add_tokens(v);
    add_merges(v);
}

inline void tokenizer::add_tokens(vocabulary const& v) {
    constexpr std::int32_t control = 3;
    constexpr std::int32_t user_defined = 4;
    std::unordered_map<std::uint32_t, char> byte_of;
    auto const alphabet = detail::byte_alphabet();
    for (std::size_t b = 0; b < 256; ++b) byte_of.emplace(alphabet[b], static_cast<char>(b));

    byte_tokens_.fill(-1);
    starts_.reserve(v.tokens.size() + 1);
    for (std::size_t i = 0; i < v.tokens.size(); ++i) {
        std::string_view rest = v.tokens[i];
        std::size_t const start = text_.size();
        starts_.push_back(start);
        is_control_.push_back(v.types[i] == control);
        if (v.types[i] == control || v.types[i] == user_defined) {
            text_ += rest;
            if (!rest.empty()) specials_[first_byte(rest)].push_back(static_cast<token_id>(i));
            continue;
        }
        while (!rest.empty()) {
            utf8_prefix const p = decode_utf8(rest);
            auto const at = byte_of.find(p.code);
            if (p.what == utf8_prefix::kind::complete && at != byte_of.end())
                text_ += at->second;
            else
                text_ += rest.substr(0, p.length); // outside of the alphabet: it stands for itself
            rest.remove_prefix(p.length);
        }
        if (text_.size() != start + 1) continue;
        token_id& single = byte_tokens_[static_cast<unsigned char>(text_[start])];
        if (single < 0) single = static_cast<token_id>(i);
    }
    starts_.push_back(text_.size());
    for (auto& bucket : specials_)
        std::sort(bucket.begin(), bucket.end(), [&](token_id a, token_id b) {
            return std::pair{bytes(b).size(), a} < std::pair{bytes(a).size(), b};
        });
}

inline void tokenizer::add_merges(vocabulary const& v) {
    std::unordered_map<std::string_view, token_id> ids;
    ids.reserve(v.tokens.size());
    for (std::size_t i = 0; i < v.tokens.size(); ++i) ids.emplace(v.tokens[i], static_cast<token_id>(i));
    joins_.reserve(v.merges.size());
    std::string joined;
    for (std::size_t i = 0; i < v.merges.size(); ++i) {
        std::string_view const merge = v.merges[i];
        std::size_t const space = merge.find(' ', 1);
        joined.assign(merge.substr(0, space));
        if (space != std::string_view::npos) joined += merge.substr(space + 1);
        auto const left = ids.find(merge.substr(0, space));
        auto const right = ids.find(merge.substr(std::min(space, merge.size() - 1) + 1));
        auto const result = ids.find(joined);
        if (space == std::string_view::npos || left == ids.end() || right == ids.end() || result == ids.end())
            tessera::detail::raise<tessera::format_error>("tokenizer: merge " + std::to_string(i) + " " +
                                                          tessera::gguf::detail::quoted_name(merge) +
                                                          " does not join two tokens to a third");
        joins_.emplace(key(left->second, right->second), join{static_cast<std::uint32_t>(i), result->second});
    }
}

inline token_id tokenizer::longest_special(std::string_view text, special_tokens special) const {
    for (token_id const id : specials_[first_byte(text)]) {
        bool const counts = special == special_tokens::parse || !is_control_[static_cast<std::size_t>(id)];
        if (counts && text.starts_with(bytes(id))) return id;
    }
    return -1;
}

inline std::vector<token_id> tokenizer::encode(std::span<text_piece const> pieces) const {
    std::vector<token_id> out;
    scratch s;
    std::string text; // since the last special token
    for (text_piece const& piece : pieces) {
        std::string_view rest = piece.text;
        while (!rest.empty()) {
            token_id const id = longest_special(rest, piece.special);
            if (id < 0) {
                text += rest[0];
                rest.remove_prefix(1);
                continue;
            }
            encode_text(text, s, out);
            text.clear();
            out.push_back(id);
            rest.remove_prefix(bytes(id).size());
        }
    }
    encode_text(text, s, out);
    return out;
}

inline void tokenizer::encode_text(std::string_view text, scratch& s, std::vector<token_id>& out) const {
    // Links between symbols are 32-bit: longer words than that cannot be, so longer texts are refused.
    tessera::check::within("tokenizer", "bytes of the text", static_cast<tessera::index_t>(text.size()), 0, 1 << 30);
    detail::word_splitter words{text, pre_tokenizer_};
    while (!words.done()) encode_word(words.next(), s, out);
}

inline void tokenizer::push_candidate(scratch& s, std::int32_t left) const {
    if (left < 0) return;
    symbol const& a = s.symbols[static_cast<std::size_t>(left)];
    if (a.next < 0) return;
    join const* const j = find_join(a.id, s.symbols[static_cast<std::size_t>(a.next)].id);
    if (j != nullptr) s.queue.push({j->rank, left, j->result});
}

/// n bytes take O(n log n): each join adds at most two candidates.
inline void tokenizer::encode_word(std::string_view word, scratch& s, std::vector<token_id>& out) const {
    s.symbols.clear();
    for (char const c : word) {
        token_id const id = byte_tokens_[static_cast<unsigned char>(c)];
        if (id < 0) continue;
        auto const i = static_cast<std::int32_t>(s.symbols.size());
        s.symbols.push_back({id, i - 1, i + 1});
    }
    if (s.symbols.empty()) return;
    s.symbols.back().next = -1;
    for (std::size_t i = 0; i + 1 < s.symbols.size(); ++i) push_candidate(s, static_cast<std::int32_t>(i));

    while (!s.queue.empty()) {
        candidate const best = s.queue.top();
        s.queue.pop();
        symbol& left = s.symbols[static_cast<std::size_t>(best.left)];
        if (left.id < 0 || left.next < 0) continue; // was joined into its neighbour
        symbol& right = s.symbols[static_cast<std::size_t>(left.next)];
        join const* const j = find_join(left.id, right.id);
        if (j == nullptr || j->rank != best.rank) continue; // one of the two has changed since
        left.id = best.result;
        left.next = right.next;
        right.id = -1;
        if (left.next >= 0) s.symbols[static_cast<std::size_t>(left.next)].previous = best.left;
        push_candidate(s, left.previous);
        push_candidate(s, best.left);
    }
    for (symbol const& x : s.symbols)
        if (x.id >= 0) out.push_back(x.id);
}

} // namespace generate
