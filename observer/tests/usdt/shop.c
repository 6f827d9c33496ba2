/* A program with USDT probes that reports its own truth. It does what the lines of its standard input say,
 * and answers each with one line. The notes are written here, so that no header has to be installed. */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Counts of those who listen; the kernel raises them. */
__attribute__((section(".probes"), used)) volatile unsigned short shop_wait_semaphore;

/* A nop, and the note that tells where it is and what it passes. */
#define PROBE(name, semaphore, arguments, ...)                                                   \
    __asm__ __volatile__("990: nop\n"                                                            \
                         ".pushsection .note.stapsdt,\"\",\"note\"\n"                            \
                         ".balign 4\n"                                                           \
                         ".4byte 992f-991f, 994f-993f, 3\n"                                      \
                         "991: .asciz \"stapsdt\"\n"                                             \
                         "992: .balign 4\n"                                                      \
                         "993: .8byte 990b\n"                                                    \
                         ".8byte _.stapsdt.base\n"                                               \
                         ".8byte " semaphore "\n"                                                \
                         ".asciz \"shop\"\n"                                                     \
                         ".asciz \"" name "\"\n"                                                 \
                         ".asciz \"" arguments "\"\n"                                            \
                         "994: .balign 4\n"                                                      \
                         ".popsection\n"                                                         \
                         :                                                                       \
                         : __VA_ARGS__                                                           \
                         : "memory")

__asm__(".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
        ".weak _.stapsdt.base\n"
        ".hidden _.stapsdt.base\n"
        "_.stapsdt.base: .space 1\n"
        ".size _.stapsdt.base, 1\n"
        ".popsection\n");

int32_t shop_table[4] = {-11, -22, 33, 0x0044};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void nap(uint64_t us) {
    struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&time, NULL);
}

__attribute__((noinline)) static void begin(uint64_t resource, const char *name) {
    if (shop_wait_semaphore)
        PROBE("wait__start", "shop_wait_semaphore", "8@%%rdi 8@%%rsi", "D"(resource), "S"(name));
}

__attribute__((noinline)) static void end(void) {
    if (shop_wait_semaphore)
        PROBE("wait__done", "shop_wait_semaphore", "", "r"(0));
}

struct tally {
    uint64_t waits, sum_ns, us, resource;
};

static void *some(void *given) {
    struct tally *tally = given;
    uint64_t waits = tally->waits;
    for (uint64_t i = 0; i < waits; i++) {
        uint64_t start = now();
        begin(tally->resource, "till");
        nap(tally->us);
        end();
        tally->sum_ns += now() - start;
    }
    return NULL;
}

/* Threads that wait for one resource at the same time. */
static void threads(uint64_t count, uint64_t waits, uint64_t us, uint64_t resource) {
    pthread_t thread[64];
    struct tally tally[64];
    struct tally sum = {0, 0, 0, 0};
    for (uint64_t i = 0; i < count && i < 64; i++) {
        tally[i] = (struct tally){waits, 0, us, resource};
        pthread_create(&thread[i], NULL, some, &tally[i]);
    }
    for (uint64_t i = 0; i < count && i < 64; i++) {
        pthread_join(thread[i], NULL);
        sum.waits += tally[i].waits;
        sum.sum_ns += tally[i].sum_ns;
    }
    printf("truth {\"waits\":%" PRIu64 ",\"sum_ns\":%" PRIu64 "}\n", sum.waits, sum.sum_ns);
}

/* Every form of an argument, each with values that only the right reading gives. */
static void forms(void) {
    static uint64_t memory[6] = {0x9988776655443322u, 0xdddddddddddddddd, 0x0123456789abcdefu,
                                 0xfffffffffffffff9u, 0x1111111122222222u, 5};
    uint64_t *middle = memory + 2;

    PROBE("forms__a", "0", "8@%%rax 4@%%eax 2@%%ax 1@%%al 1@%%ah -1@%%sil -4@$-5 8@%%rdi",
          "a"(0x1122334455667788u), "S"((uint64_t)0x180), "D"(middle));
    PROBE("forms__done", "0", "", "r"(0));
    printf("forms [\"0x1122334455667788 0x55667788 0x7788 0x88 0x77 -128 -5 %#" PRIx64 "\",",
           (uint64_t)(uintptr_t)middle);

    PROBE("forms__b", "0",
          "8@(%%rdi) -4@8(%%rdi) 2@-16(%%rdi) 8@(%%rdi,%%rcx,8) -4@4+-8(%%rdi,%%rcx,4) "
          "-4@4+shop_table(%%rip) 8@$shop_table 1@shop_table(,%%rdx,4)",
          "D"(middle), "c"((uint64_t)2), "d"((uint64_t)3));
    PROBE("forms__done", "0", "", "r"(0));
    printf("\"0x123456789abcdef -7 0x3322 0x1111111122222222 %d -22 %#" PRIx64 " 0x44\",",
           (int32_t)(middle[0] >> 32), (uint64_t)(uintptr_t)shop_table);

    register uint64_t r8 __asm__("r8") = 0x8888888888888888u;
    register uint64_t r9 __asm__("r9") = 0x9999999999999999u;
    register uint64_t r10 __asm__("r10") = 0xaaaaaaaaaaaaaaaau;
    register uint64_t r11 __asm__("r11") = 0xbbbbbbbbbbbbbbbbu;
    register uint64_t r12 __asm__("r12") = (uint64_t)-12;
    register uint64_t r13 __asm__("r13") = 0xfff3;
    register uint64_t r14 __asm__("r14") = 0xf2;
    register uint64_t *r15 __asm__("r15") = memory;
    PROBE("forms__c", "0", "8@%%r8 4@%%r9d 2@%%r10w 1@%%r11b -8@%%r12 -2@%%r13w -1@%%r14b 8@(%%r15)", "r"(r8),
          "r"(r9), "r"(r10), "r"(r11), "r"(r12), "r"(r13), "r"(r14), "r"(r15));
    PROBE("forms__done", "0", "", "r"(0));
    printf("\"0x8888888888888888 0x99999999 0xaaaa 0xbb -12 -13 -14 0x9988776655443322\",");

    /* Text with its length, as it stands among other text. */
    PROBE("forms__d", "0", "8@%%rsi 4@%%edx", "S"("a class and more"), "d"(7));
    PROBE("forms__done", "0", "", "r"(0));
    printf("\"a class\"]\n");
}

/* Children that map the same file and do nothing; each ends when the pipe is closed, and tells by how whether
 * anybody listens in it. */
static int crowd_end = -1;
static uint64_t crowd_size;

static void crowd(uint64_t count) {
    int ends[2];
    char byte;
    if (pipe(ends))
        abort();
    for (crowd_size = 0; crowd_size < count; crowd_size++) {
        pid_t child = fork();
        if (child < 0)
            break;
        if (child == 0) {
            close(ends[1]);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (read(ends[0], &byte, 1) > 0) {
            }
            _exit(shop_wait_semaphore != 0);
        }
    }
    close(ends[0]);
    crowd_end = ends[1];
    printf("crowd %" PRIu64 "\n", crowd_size);
}

static void disperse(void) {
    uint64_t listened = 0;
    close(crowd_end);
    for (; crowd_size; crowd_size--) {
        int status = 0;
        wait(&status);
        listened += WIFEXITED(status) && WEXITSTATUS(status) != 0;
    }
    printf("listened %" PRIu64 "\n", listened);
}

int main(void) {
    char line[128];
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready {\"pid\":%d}\n", getpid());
    while (fgets(line, sizeof line, stdin)) {
        uint64_t a = 0, b = 0, c = 0, d = 0;
        char word[16] = "";
        sscanf(line, "%15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, word, &a, &b, &c, &d);
        if (!strcmp(word, "semaphore")) {
            printf("semaphore %u\n", shop_wait_semaphore);
        } else if (!strcmp(word, "threads")) {
            threads(a, b, c, d);
        } else if (!strcmp(word, "crowd")) {
            crowd(a);
        } else if (!strcmp(word, "disperse")) {
            disperse();
        } else if (!strcmp(word, "forms")) {
            forms();
        } else if (!strcmp(word, "begin")) {
            begin(a, "till");
            printf("begun {}\n");
        } else if (!strcmp(word, "unreadable")) {
            /* A name that points nowhere, and an argument that does. */
            begin(a, (const char *)16);
            end();
            PROBE("bad", "0", "8@(%%rdi)", "D"((uint64_t)16));
            printf("done {}\n");
        } else if (!strcmp(word, "strange")) {
            PROBE("strange", "0", "8@%%rdi 16f@%%xmm0", "D"((uint64_t)1));
            PROBE("strange__done", "0", "", "r"(0));
            PROBE("bad__done", "0", "", "r"(0));
            printf("done {}\n");
        } else if (!strcmp(word, "end")) {
            end();
            printf("ended {}\n");
        }
    }
    return 0;
}
