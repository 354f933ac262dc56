// A library whose functions throw and let exceptions pass.
#include <stdexcept>
#include <string>

struct Guard {
  int *n;
  ~Guard() { ++*n; }
};

int thrower(int depth, int *unwound) {
  Guard g{unwound};
  if (depth == 0) throw std::runtime_error("from the depth of the library");
  return thrower(depth - 1, unwound) + 1;
}

int rethrower(int depth, int *unwound) {
  try {
    return thrower(depth, unwound);
  } catch (const std::runtime_error &e) {
    throw std::logic_error(std::string("again: ") + e.what());
  }
}
