// Scratch memory that outlives a call: fresh pages cost more than the sorting done in them.
// A call borrows a Scratch, takes arrays from it in a fixed order, and gives it back when it ends.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

class Scratch {
 public:
  // Room for n objects of T, not initialised; valid until the Scratch is given back.
  template <class T>
  T* take(size_t n) {
    if (next_ == slots_.size()) slots_.emplace_back();
    Slot& s = slots_[next_++];
    size_t bytes = n * sizeof(T) + 64;
    if (s.bytes < bytes) {
      s.data.reset();
      s.bytes = bytes + bytes / 4;
      s.data.reset(new char[s.bytes]);
    }
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(s.data.get()) + 63) & ~(uintptr_t)63);
  }

 private:
  friend class Borrowed;
  struct Slot {
    std::unique_ptr<char[]> data;
    size_t bytes = 0;
  };
  std::vector<Slot> slots_;
  size_t next_ = 0;
};

class Borrowed {
 public:
  // Each kind of call has its own pile (a function-local static), so that slots keep their sizes.
  struct Pile {
    std::mutex m;
    std::vector<std::unique_ptr<Scratch>> free;
  };
  explicit Borrowed(Pile& pile) : pile_(pile) {
    std::lock_guard<std::mutex> lock(pile_.m);
    if (pile_.free.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(pile_.free.back());
      pile_.free.pop_back();
    }
    scratch_->next_ = 0;
  }
  ~Borrowed() {
    std::lock_guard<std::mutex> lock(pile_.m);
    pile_.free.push_back(std::move(scratch_));
  }
  Scratch& operator*() { return *scratch_; }

 private:
  Pile& pile_;
  std::unique_ptr<Scratch> scratch_;
};
