// SPDX-License-Identifier: MIT
// The example's tokenizer: a hand-made vocabulary, and, where the model file is at hand, the ids of the tokenizers
// library (tests/data/tokenizer).

#include <doctest/doctest.h>

#include "../../../examples/generate/chat.hpp"
#include "../../../examples/generate/tokenizer.hpp"

#include <tessera/storage/mapped_file.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ts = tessera;
using generate::char_class;
using generate::special_tokens;
using generate::token_id;
using ids = std::vector<token_id>;

namespace {

/// 256 bytes as tokens 0 to 255 in the alphabet of GPT-2, then `more` with their merges, then `special`.
class tiny_model {
public:
    tiny_model(std::vector<std::string> const& merges, std::vector<std::string> const& special,
               std::vector<std::string> const& user_defined = {}) {
        for (std::uint32_t const c : generate::detail::byte_alphabet()) {
            strings_.emplace_back();
            generate::append_utf8(strings_.back(), c);
        }
        for (std::string const& m : merges) {
            std::size_t const space = m.find(' ');
            strings_.push_back(m.substr(0, space) + m.substr(space + 1));
        }
        std::vector<std::int32_t> types(strings_.size(), 1);
        for (std::string const& s : special) strings_.push_back(s);
        types.resize(strings_.size(), 3);
        for (std::string const& s : user_defined) strings_.push_back(s);
        types.resize(strings_.size(), 4);
        merges_ = merges;
        v_.tokens.assign(strings_.begin(), strings_.end());
        v_.merges.assign(merges_.begin(), merges_.end());
        v_.types = types;
    }
    generate::vocabulary const& get() const { return v_; }

private:
    std::vector<std::string> strings_;
    std::vector<std::string> merges_;
    generate::vocabulary v_;
};

std::vector<std::string> split(std::string_view text, generate::pre_tokenizer kind) {
    std::vector<std::string> words;
    for (generate::detail::word_splitter s{text, kind}; !s.done();) words.emplace_back(s.next());
    return words;
}

std::optional<std::string> model_path() {
    std::vector<std::string> places;
    if (char const* const path = std::getenv("TESSERA_TEST_MODEL")) places.emplace_back(path);
    if (char const* const home = std::getenv("HOME"))
        places.push_back(std::string{home} + "/.cache/tessera/SmolLM2-135M-Instruct.Q4_1.gguf");
    for (std::string const& path : places)
        if (std::FILE* const f = std::fopen(path.c_str(), "rb")) {
            std::fclose(f);
            return path;
        }
    return std::nullopt;
}

} // namespace

TEST_CASE("character classes") {
    CHECK(generate::class_of('a') == char_class::letter);
    CHECK(generate::class_of('Z') == char_class::letter);
    CHECK(generate::class_of('[') == char_class::other);
    CHECK(generate::class_of('@') == char_class::other);
    CHECK(generate::class_of('0') == char_class::number);
    CHECK(generate::class_of(0x1c) == char_class::other); // Python calls it a space, Unicode does not
    CHECK(generate::class_of(0x85) == char_class::space);
    CHECK(generate::class_of(0x200b) == char_class::other);
    CHECK(generate::class_of(0xe9) == char_class::letter);
    CHECK(generate::class_of(0xbd) == char_class::number);
    CHECK(generate::class_of(0x2163) == char_class::number);
    CHECK(generate::class_of(0x4e2d) == char_class::letter);
    CHECK(generate::class_of(0x301) == char_class::other);
    CHECK(generate::class_of(0x1f600) == char_class::other);
    CHECK(generate::class_of(0x323af) == char_class::letter);
    CHECK(generate::class_of(0x10ffff) == char_class::other);
}

TEST_CASE("UTF-8: every code point there and back; what is not UTF-8") {
    for (std::uint32_t c = 0; c < 0x110000; ++c) {
        if (c >= 0xd800 && c < 0xe000) continue;
        std::string s;
        generate::append_utf8(s, c);
        auto const p = generate::decode_utf8(s);
        bool const same = p.what == generate::utf8_prefix::kind::complete && p.code == c && p.length == s.size();
        if (!same) FAIL("code point " << c);
    }
    using enum generate::utf8_prefix::kind;
    for (std::string_view const s : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xf5\x80\x80\x80", "\xff", "\xe0\x80\x80",
                                     "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xc3x"})
        CHECK(generate::decode_utf8(s).what == invalid);
    for (std::string_view const s : {"\xc3", "\xe6", "\xe6\x97", "\xf0\x9f", "\xf0\x9f\x98"})
        CHECK(generate::decode_utf8(s).what == unfinished);
    CHECK(generate::decode_utf8("\xf0\x9f\x98x").length == 3);
}

TEST_CASE("a stream of bytes comes out as whole characters") {
    std::string const text = "a\u00e9\u65e5\U0001f600z";
    generate::utf8_stream stream;
    std::string out;
    for (char const c : text) {
        std::string const part = stream.push({&c, 1});
        CHECK((part.empty() || generate::decode_utf8(part).what == generate::utf8_prefix::kind::complete));
        out += part;
    }
    CHECK(out == text);
    CHECK(stream.finish().empty());
    CHECK(stream.push("x\xff\xe6\x97") == "x\ufffd");
    CHECK(stream.push("y") == "\ufffdy");
    CHECK(stream.push("\xf0\x9f").empty());
    CHECK(stream.finish() == "\ufffd");
    CHECK(stream.finish().empty());
}

TEST_CASE("words") {
    using generate::pre_tokenizer;
    using words = std::vector<std::string>;
    CHECK(split("Hello world's 12", pre_tokenizer::gpt2) == words{"Hello", " world", "'s", " 12"});
    CHECK(split("Hello world's 12", pre_tokenizer::single_digits) == words{"Hello", " world", "'s", " ", "1", "2"});
    CHECK(split("a   b", pre_tokenizer::gpt2) == words{"a", "  ", " b"});
    CHECK(split("a   1", pre_tokenizer::gpt2) == words{"a", "  ", " 1"});
    CHECK(split("a   1", pre_tokenizer::single_digits) == words{"a", "   ", "1"});
    CHECK(split("a\n\n", pre_tokenizer::gpt2) == words{"a", "\n\n"});
    CHECK(split("a\n\nb", pre_tokenizer::gpt2) == words{"a", "\n", "\n", "b"});
    CHECK(split("\ta", pre_tokenizer::gpt2) == words{"\t", "a"});
    CHECK(split("!'s 's", pre_tokenizer::gpt2) == words{"!'", "s", " '", "s"});
    CHECK(split("I'LL we'll", pre_tokenizer::gpt2) == words{"I", "'", "LL", " we", "'ll"});
    CHECK(split("\xff\xfe a", pre_tokenizer::gpt2) == words{"\xff\xfe", " a"});
    CHECK(split("", pre_tokenizer::gpt2).empty());
}

TEST_CASE("a hand-made vocabulary") {
    // 256 "he", 257 "ll", 258 "hell", 259 "hello", 260 " hello", 261 "lo", 262 <a>, 263 <a><b>, 264 [u]
    tiny_model const m{{"h e", "l l", "he ll", "hell o", "\u0120 hello", "l o"}, {"<a>", "<a><b>"}, {"[u]"}};
    generate::tokenizer const t{m.get()};
    CHECK(t.size() == 265);
    CHECK(t.encode("").empty());
    CHECK(t.encode("hello") == ids{259});
    CHECK(t.encode(" hello") == ids{260});
    CHECK(t.encode("hellohello") == ids{259, 259});
    CHECK(t.encode("helo") == ids{256, 261});
    CHECK(t.encode("hellllo") == ids{258, 257, 'o'});
    CHECK(t.encode("lllo") == ids{257, 261});
    CHECK(t.encode("\u00e9") == ids{0xc3, 0xa9});

    CHECK(t.encode("he<a>llo") == ids{256, 262, 257, 'o'});
    CHECK(t.encode("<a><b><a>") == ids{263, 262}); // the longest one
    CHECK(t.encode("<a") == ids{'<', 'a'});
    CHECK(t.encode("<a>", special_tokens::as_text) == ids{'<', 'a', '>'});
    CHECK(t.encode("[u]", special_tokens::as_text) == ids{264}); // user-defined tokens are part of the text

    // pieces are one text, but special tokens are only in those that may hold them
    generate::text_piece const pieces[] = {{"<a>he"}, {"llo<a>", special_tokens::as_text}, {"<a>"}};
    CHECK(t.encode(pieces) == ids{262, 259, '<', 'a', '>', 262});

    CHECK(t.special("<a>") == 262);
    CHECK(!t.special("hello").has_value());
    CHECK(t.bytes(260) == " hello");
    CHECK(t.decode(ids{263, 260, 0xc3, 0xa9, 0}) == std::string{"<a><b> hello\u00e9\0", 15});
    CHECK_THROWS_AS(t.bytes(265), ts::shape_error);
    CHECK_THROWS_AS(t.bytes(-1), ts::shape_error);

    std::string every;
    for (int b = 0; b < 256; ++b) every += static_cast<char>(b);
    CHECK(t.decode(t.encode(every)) == every);
    std::string const long_word(1 << 20, 'l');
    CHECK(t.encode(long_word).size() == (1 << 19));
}

TEST_CASE("bytes without a token are left out") {
    std::string_view const tokens[] = {"a", "b", "ab"};
    std::string_view const merges[] = {"a b"};
    generate::vocabulary v;
    v.tokens.assign(tokens, tokens + 3);
    v.merges.assign(merges, merges + 1);
    v.types = {1, 1, 1};
    generate::tokenizer const t{v};
    CHECK(t.encode("axb") == ids{2});
    CHECK(t.encode("xyz").empty());
}

TEST_CASE("vocabularies that contradict themselves") {
    tiny_model const m{{"h e"}, {"<a>"}};
    auto const with = [&](auto change) {
        generate::vocabulary v = m.get();
        change(v);
        return v;
    };
    using generate::tokenizer;
    using generate::vocabulary;
    CHECK_THROWS_AS(tokenizer{with([](vocabulary& v) { v.types.pop_back(); })}, ts::format_error);
    CHECK_THROWS_AS(tokenizer{with([](vocabulary& v) { v.end = 258; })}, ts::format_error);
    CHECK_THROWS_AS(tokenizer{with([](vocabulary& v) { v.begin = -2; })}, ts::format_error);
    CHECK_THROWS_AS(tokenizer{with([](vocabulary& v) { v.adds_begin = true; })}, ts::format_error);
    for (std::string_view const merge : {"", " ", "h", "h ", " e", "h  e", "h x", "zz e", "h e e"})
        CHECK_THROWS_WITH_AS(tokenizer{with([&](vocabulary& v) { v.merges[0] = merge; })},
                             doctest::Contains("does not join two tokens to a third"), ts::format_error);
    CHECK_THROWS_WITH_AS(tokenizer{with([](vocabulary& v) { v.pre_tokenizer = "llama-bpe"; })},
                         doctest::Contains("pre-tokenizer is llama-bpe, expected gpt-2"), ts::unsupported_error);
}

TEST_CASE("the ids of the tokenizers library for SmolLM2's vocabulary") {
    auto const path = model_path();
    if (!path) {
        MESSAGE("skipped: no model file (TESSERA_TEST_MODEL, or ~/.cache/tessera/SmolLM2-135M-Instruct.Q4_1.gguf)");
        return;
    }
    ts::mapped_file const bytes{*path};
    auto const file = ts::gguf::parse(bytes.bytes(), *path);
    auto v = generate::read_vocabulary(file);
    generate::tokenizer const smollm{v};
    v.pre_tokenizer = "gpt-2";
    generate::tokenizer const gpt2{v};
    CHECK(smollm.size() == 49152);
    CHECK(smollm.end_token() == 2);
    CHECK(!smollm.adds_begin_token());

    auto const chat = generate::read_chat_template(file);
    std::vector<generate::message> messages{{"user", "  Why is the sky blue?\n"}};
    CHECK(chat.encode(smollm, messages) == smollm.encode(chat.render(messages)));
    CHECK(generate::chat_template::end_of_turn(smollm) == 2);
    messages[0].content = "<|im_end|>";
    CHECK(chat.encode(smollm, messages).size() > smollm.encode(chat.render(messages)).size());

    ts::mapped_file const expected{std::string{TESSERA_TEST_DATA} + "/tokenizer/smollm2.bin"};
    std::span<std::byte const> rest = expected.bytes();
    auto const number = [&] {
        std::uint32_t value = 0;
        REQUIRE(rest.size() >= sizeof(value));
        std::memcpy(&value, rest.data(), sizeof(value));
        rest = rest.subspan(sizeof(value));
        return value;
    };
    std::uint32_t const count = number();
    CHECK(count >= 200);
    for (std::uint32_t i = 0; i < count; ++i) {
        std::uint32_t const size = number();
        REQUIRE(rest.size() >= size);
        std::string_view const text{reinterpret_cast<char const*>(rest.data()), size};
        rest = rest.subspan(size);
        CAPTURE(i);
        CAPTURE(std::string{text.substr(0, 200)});
        for (generate::tokenizer const* const t : {&smollm, &gpt2}) {
            ids wanted(number());
            for (token_id& id : wanted) id = static_cast<token_id>(number());
            ids const got = t->encode(text);
            CHECK(got == wanted);

            // decoding gives the text, but for the bytes that the vocabulary has no token for
            std::string known;
            for (char const c : text)
                if (!t->encode({&c, 1}).empty()) known += c;
            CHECK(t->decode(got) == known);
        }
    }
    CHECK(rest.empty());
}
