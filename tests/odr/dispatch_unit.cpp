// SPDX-License-Identifier: MIT
// Compiled once for each instruction set: templates and inline functions of std and of tessera, a virtual function, a static
// variable of an inline function, an exception.

#include "unit.hpp"

#include <tessera/core/arch.hpp>
#include <tessera/core/error.hpp>
#include <tessera/storage/tensor.hpp>

#include <map>
#include <memory>
#include <numeric>

namespace ts = tessera;

/// Has linkage on purpose, and is no entry: its name does not contain the instruction set.
struct counter {
    virtual ~counter() = default;
    virtual void add(std::string const& word) { ++words[word]; }
    std::map<std::string, int> words;
};
inline int& calls() {
    static int count = 0;
    return count;
}
std::vector<std::string> words(std::string const& text);

std::vector<std::string> words(std::string const& text) {
    ++calls();
    auto const count = std::make_unique<counter>();
    std::string word;
    for (char const c : text + " ") {
        if (c != ' ')
            word += c;
        else if (!word.empty())
            count->add(std::exchange(word, {}));
    }
    ts::check::at_least("words", "words of the text", static_cast<ts::index_t>(count->words.size()), 1);
    std::vector<std::string> result;
    for (auto const& [text_of, n] : count->words) result.push_back(text_of + " " + std::to_string(n));
    return result;
}

namespace {

float sum(std::vector<float> const& x) {
    ts::matrix<float> copy{1, static_cast<ts::index_t>(x.size())};
    for (ts::index_t i = 0; i < copy.size(); ++i) copy.data()[i] = x[static_cast<std::size_t>(i)] * 2 - x[static_cast<std::size_t>(i)];
    return std::accumulate(copy.data(), copy.data() + copy.size(), 0.0f);
}

} // namespace

template <>
unit make_unit<ts::native_arch>() {
    return {ts::native_arch::name, &sum, &words};
}
