// SPDX-License-Identifier: MIT
// A driver for compilers without libFuzzer: every file of the corpus, then `runs` mutations of them with a fixed seed.
// Usage: <target>_fuzz RUNS CORPUS. An input that ends the process is left in ./crash-<target>.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

namespace {

using bytes = std::vector<std::uint8_t>;

std::vector<bytes> read_corpus(std::filesystem::path const& folder) {
    std::vector<std::filesystem::path> files;
    for (auto const& entry : std::filesystem::directory_iterator(folder))
        if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end()); // the order of a directory is not fixed
    std::vector<bytes> corpus;
    for (auto const& file : files) {
        std::ifstream in(file, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
    return corpus;
}

class mutator {
public:
    explicit mutator(std::uint64_t seed) : random_{seed} {}

    /// One to four edits of a copy: a flipped bit, a byte, a word of an interesting value, a cut, a repeat, a splice.
    bytes operator()(bytes data, bytes const& other) {
        for (std::size_t edits = 1 + below(4); edits > 0; --edits) edit(data, other);
        return data;
    }

    std::size_t below(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random_() % n); }

private:
    void edit(bytes& data, bytes const& other) {
        static constexpr std::uint64_t words[] = {
            0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
            0x8000000000000000, 0xffffffffffffffff, 0x1fffffffffffffff, 0x0000000100000000};
        if (data.empty()) {
            data.push_back(static_cast<std::uint8_t>(random_()));
            return;
        }
        // Headers are at the front: half of the edits go to the first 4096 bytes.
        std::size_t const at = below(random_() % 2 == 0 ? std::min<std::size_t>(data.size(), 4096) : data.size());
        auto const position = data.begin() + static_cast<std::ptrdiff_t>(at);
        switch (random_() % 6) {
        case 0: data[at] = static_cast<std::uint8_t>(data[at] ^ (1u << below(8))); break;
        case 1: data[at] = static_cast<std::uint8_t>(random_()); break;
        case 2: {
            std::uint64_t const word = words[below(std::size(words))];
            std::size_t const width = std::size_t{1} << below(4);
            for (std::size_t i = 0; i < width && at + i < data.size(); ++i)
                data[at + i] = static_cast<std::uint8_t>(word >> (8 * i));
            break;
        }
        case 3: data.erase(position, data.end()); break;
        case 4: {
            bytes const piece(position, position + static_cast<std::ptrdiff_t>(std::min(data.size() - at, 1 + below(64))));
            data.insert(data.begin() + static_cast<std::ptrdiff_t>(at), piece.begin(), piece.end());
            break;
        }
        default:
            data.erase(position, data.end());
            if (at < other.size()) data.insert(data.end(), other.begin() + static_cast<std::ptrdiff_t>(at), other.end());
        }
    }

    std::mt19937_64 random_;
};

} // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: %s RUNS CORPUS\n", arguments[0]);
        return 2;
    }
    long const runs = std::atol(arguments[1]);
    auto const corpus = read_corpus(arguments[2]);
    if (corpus.empty()) {
        std::fprintf(stderr, "%s holds no file\n", arguments[2]);
        return 2;
    }
    std::string const crash = "crash-" + std::filesystem::path(arguments[0]).filename().string();
    auto const run = [&](bytes const& data) {
        {
            std::ofstream out(crash, std::ios::binary);
            out.write(reinterpret_cast<char const*>(data.data()), static_cast<std::streamsize>(data.size()));
        }
        LLVMFuzzerTestOneInput(data.data(), data.size());
    };
    for (auto const& data : corpus) run(data);
    mutator mutate{1};
    for (long i = 0; i < runs; ++i) {
        auto const& one = corpus[mutate.below(corpus.size())];
        run(mutate(one, corpus[mutate.below(corpus.size())]));
    }
    std::filesystem::remove(crash);
    std::printf("%zu files of the corpus and %ld mutations\n", corpus.size(), runs);
    return 0;
}
