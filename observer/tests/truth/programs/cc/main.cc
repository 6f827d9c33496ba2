// Scenes of the C++ library's locks.
#include "truth.h"

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <thread>
#include <unistd.h>

// Waits of templates are code of the program itself: without its symbols nothing tells what they are.
#ifdef STRIPPED
#define INLINE_ATOMIC "futex"
#else
#define INLINE_ATOMIC "cxx_atomic"
#endif

namespace {

int taken;
int points[2];

[[noreturn]] void rest()
{
    for (;;)
        pause();
}

template <typename T> wait of(const T &lock, const char *class_name, const char *name, int holder)
{
    return {&lock, sizeof lock, class_name, name, holder, nullptr, nullptr};
}

// One thread holds something in pause(2), others want it.
void held(void *(*hold)(void *), void *(*want)(void *), wait truth)
{
    thread holder = start("holder", hold, nullptr);
    await(&taken);
    thread waiter = start("waiter", want, nullptr);
    asleep(waiter.tid);
    truth.holder = holder.tid;
    waits(waiter, truth);
}

} // namespace

namespace bank {
std::mutex vault;
std::mutex ledger;
std::recursive_mutex nested;
std::timed_mutex timed;
std::shared_mutex shared;
std::once_flag opened;
std::condition_variable work;
std::atomic<int> word{0};
std::promise<int> promise;

// A lock inside of an object.
struct Account {
    long balance = 0;
    std::mutex lock;
} account;
} // namespace bank

using namespace bank;

static void cxx_mutex()
{
    held([](void *) -> void * { std::lock_guard guard(vault); reach(&taken); rest(); },
         [](void *) -> void * { std::lock_guard guard(vault); return nullptr; },
         of(vault, "pthread_mutex", "bank::vault", 0));
}

static void cxx_member()
{
    held([](void *) -> void * { std::lock_guard guard(account.lock); reach(&taken); rest(); },
         [](void *) -> void * { std::unique_lock guard(account.lock); return nullptr; },
         of(account.lock, "pthread_mutex", "bank::account+0x8", 0));
}

static void cxx_recursive()
{
    held([](void *) -> void * { nested.lock(); nested.lock(); reach(&taken); rest(); },
         [](void *) -> void * { nested.lock(); return nullptr; },
         of(nested, "pthread_mutex", "bank::nested", 0));
}

static void cxx_timed()
{
    held([](void *) -> void * { timed.lock(); reach(&taken); rest(); },
         [](void *) -> void * {
             while (!timed.try_lock_for(std::chrono::hours(1)))
                 ;
             return nullptr;
         },
         of(timed, "pthread_mutex", "bank::timed", 0));
}

static void cxx_shared()
{
    held([](void *) -> void * { std::unique_lock guard(shared); reach(&taken); rest(); },
         [](void *) -> void * { std::shared_lock guard(shared); return nullptr; },
         of(shared, "pthread_rwlock", "bank::shared", 0));
}

static void *cross(void *arg)
{
    bool first = arg == nullptr;
    std::lock_guard own(first ? vault : ledger);
    reach(&points[first]);
    await(&points[!first]);
    std::lock_guard next(first ? ledger : vault);
    return nullptr;
}

static void cxx_abba()
{
    thread both[2] = {start("ab", cross, nullptr), start("ba", cross, &taken)};
    asleep(both[0].tid);
    asleep(both[1].tid);
    waits(both[0], of(ledger, "pthread_mutex", "bank::ledger", both[1].tid));
    waits(both[1], of(vault, "pthread_mutex", "bank::vault", both[0].tid));
    circle(2, both);
}

static void *open_bank(void *)
{
    std::call_once(opened, [] { reach(&taken); rest(); });
    return nullptr;
}

static void cxx_once()
{
    held(open_bank, open_bank, of(opened, "pthread_once", "bank::opened", 0));
}

static int slow()
{
    reach(&taken);
    rest();
}

static void *want_static(void *)
{
    static int value = slow();
    return reinterpret_cast<void *>(static_cast<long>(value));
}

static void cxx_static()
{
    // The guard has no name in the program.
    held(want_static, want_static, {nullptr, 0, "cxx_guard", nullptr, 0, nullptr, nullptr});
}

static void *wait_for_work(void *)
{
    std::unique_lock guard(vault);
    for (;;)
        work.wait(guard);
}

static void *wait_for_change(void *)
{
    word.wait(0);
    return nullptr;
}

static void *wait_for_value(void *)
{
    static std::shared_future<int> future = promise.get_future().share();
    future.wait();
    return nullptr;
}

static std::counting_semaphore<8> jobs{0};

static void *wait_for_job(void *)
{
    jobs.acquire();
    return nullptr;
}

static void idle_in(void *(*body)(void *), const char *class_name)
{
    thread worker = start("idle", body, nullptr);
    asleep(worker.tid);
    idle(worker, class_name);
}

static void cxx_idle()
{
    idle_in(wait_for_work, "pthread_cond");
    idle_in(wait_for_work, "pthread_cond");
    idle_in(wait_for_value, "cxx_atomic");
    idle_in(wait_for_change, INLINE_ATOMIC);
    idle_in(wait_for_job, INLINE_ATOMIC);
}

int main(int argc, char **argv)
{
    static const scene scenes[] = {
        {"cxx_mutex", cxx_mutex},   {"cxx_member", cxx_member}, {"cxx_recursive", cxx_recursive},
        {"cxx_timed", cxx_timed},   {"cxx_shared", cxx_shared}, {"cxx_abba", cxx_abba},
        {"cxx_once", cxx_once},     {"cxx_static", cxx_static}, {"cxx_idle", cxx_idle},
        {nullptr, nullptr},
    };
    return play(argc, argv, scenes);
}
