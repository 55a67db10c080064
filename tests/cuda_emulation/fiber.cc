#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
static void __asan_unpoison_memory_region(const void*, size_t) {}
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

// Saves what the ABI lets a callee change, and goes on on another stack. A tenth of swapcontext's
// time, which also asks the kernel for the signal mask. x86-64 only (CMake sees to it).
asm(R"(
.text
.type medusa_switch_stack, @function
medusa_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size medusa_switch_stack, . - medusa_switch_stack
)");
constexpr int kSavedWords = 6;
extern "C" void medusa_switch_stack(void** from, void* to) asm("medusa_switch_stack");

namespace medusa::emulation {
namespace {

Fiber* previous = nullptr;  // whom the running fiber was entered from
Fiber* running = nullptr;

}  // namespace

Fiber::Fiber(size_t stack_bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapped_bytes_ = stack_bytes + page;
  mapping_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED || mprotect(mapping_, page, PROT_NONE) != 0) throw std::bad_alloc();
  stack_ = static_cast<char*>(mapping_) + page;
  stack_bytes_ = stack_bytes;
}

Fiber::~Fiber() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_bytes_);
}

// The first switch pops zeros for registers and returns into enter(), whose frame is aligned as if
// it had been called.
void Fiber::restart(void (*entry)()) {
  __asan_unpoison_memory_region(stack_, stack_bytes_);  // of frames that were abandoned
  auto* top =
      reinterpret_cast<void**>(static_cast<char*>(const_cast<void*>(stack_)) + stack_bytes_);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::enter);
  for (int i = 0; i < kSavedWords; ++i) *--top = nullptr;
  stack_pointer_ = top;
  fake_stack_ = nullptr;
  entry_ = entry;
}

void Fiber::enter() {
  __sanitizer_finish_switch_fiber(nullptr, &previous->stack_, &previous->stack_bytes_);
  running->entry_();
}

void Fiber::go(Fiber& from, Fiber& to, bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack_, to.stack_,
                                 to.stack_bytes_);
  previous = &from;
  running = &to;
  medusa_switch_stack(&from.stack_pointer_, to.stack_pointer_);
  __sanitizer_finish_switch_fiber(from.fake_stack_, &previous->stack_, &previous->stack_bytes_);
}

void Fiber::switch_to(Fiber& from, Fiber& to) { go(from, to, false); }
void Fiber::finish(Fiber& from, Fiber& to) { go(from, to, true); }

}  // namespace medusa::emulation
