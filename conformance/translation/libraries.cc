// Exceptions through three libraries, one source: PART 0 is the program, 1 to 3 the libraries it goes through.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct Problem : std::runtime_error {
  int code;
  Problem(int c, const std::string &what) : std::runtime_error(what), code(c) {}
};
struct Base { virtual ~Base(); };
struct Left : virtual Base { int left = 1; };
struct Right : virtual Base { int right = 2; };
struct Both : Left, Right { int both = 3; };

using Callback = std::function<int(int)>;
int outer(int n, const Callback &back, std::vector<std::string> &log);
int middle(int n, const Callback &back, std::vector<std::string> &log);
int inner(int n, const Callback &back, std::vector<std::string> &log);

struct Note {
  std::vector<std::string> &log;
  std::string text;
  Note(std::vector<std::string> &l, std::string t) : log(l), text(std::move(t)) {}
  ~Note() { log.push_back("~" + text + (std::uncaught_exceptions() ? "!" : "")); }
};

#if PART == 1
Base::~Base() = default;
int outer(int n, const Callback &back, std::vector<std::string> &log) {
  Note note(log, "outer");
  try {
    return middle(n, back, log) + 1;
  } catch (const Problem &p) {
    log.push_back("outer: " + std::string(p.what()));
    if (p.code == 2) throw;
    std::throw_with_nested(std::logic_error("outer failed"));
  }
}
#elif PART == 2
int middle(int n, const Callback &back, std::vector<std::string> &log) {
  Note note(log, "middle");
  auto owned = std::make_unique<Note>(log, "owned");
  return inner(n, back, log) * 2;
}
#elif PART == 3
__attribute__((noinline)) static int deeper(int n, const Callback &back) { return n == 0 ? back(n) : deeper(n - 1, back) + 1; }
int inner(int n, const Callback &back, std::vector<std::string> &log) {
  Note note(log, "inner");
  switch (n) {
    case 0: return back(n);
    case 1: throw Problem(1, "one");
    case 2: throw Problem(2, "two");
    case 3: throw Both();
    case 4: throw 4.5L;
    case 5: throw new int(5);
    case 6: return (int)*new char[(std::size_t)-1 / 4];
    default: return deeper(n, back);
  }
}
#else
static int compare(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  if (x == 13 || y == 13) throw Problem(13, "compared thirteen");
  return x - y;
}

static void nested(const std::exception &e, int depth) {
  std::printf("%*s%s\n", depth * 2, "", e.what());
  try {
    std::rethrow_if_nested(e);
  } catch (const std::exception &inside) {
    nested(inside, depth + 1);
  }
}

static int guarded() try {
  throw Problem(9, "in a function's own try");
} catch (const Problem &p) {
  return p.code;
}

int main() {
  std::vector<std::string> log;
  for (int n = 0; n < 12; n++) {
    try {
      int r = outer(n, [n](int m) -> int { if (n % 2) throw Problem(n, "from the callback"); return m + 10; }, log);
      std::printf("%d: %d\n", n, r);
    } catch (const Left &l) {
      std::printf("%d: left %d\n", n, l.left);
    } catch (const std::bad_alloc &) {
      std::printf("%d: no memory\n", n);
    } catch (const std::exception &e) {
      std::printf("%d:\n", n);
      nested(e, 1);
    } catch (long double x) {
      std::printf("%d: %Lf\n", n, x);
    } catch (int *p) {
      std::printf("%d: at %d\n", n, *p);
      delete p;
    } catch (...) {
      std::printf("%d: something\n", n);
    }
    for (const auto &line : log) std::printf("  %s\n", line.c_str());
    log.clear();
  }
  int numbers[] = { 5, 3, 13, 1, 9, 2, 8 };
  try {
    std::qsort(numbers, 7, sizeof(int), compare);
  } catch (const Problem &p) {
    std::printf("through qsort: %s\n", p.what());
  }
  std::exception_ptr carried;
  std::thread([&] { try { throw Problem(21, "in a thread"); } catch (...) { carried = std::current_exception(); } }).join();
  try {
    std::rethrow_exception(carried);
  } catch (const Problem &p) {
    std::printf("carried over: %d %s\n", p.code, p.what());
  }
  std::printf("guarded %d\n", guarded());
  for (int n = 0; n < 20000; n++) try { throw n; } catch (int m) { if (m != n) return 1; }
  std::set_terminate([] { std::puts("terminate"); std::fflush(stdout); std::_Exit(6); });
  []() noexcept { throw Problem(1, "out of noexcept"); }();
}
#endif
