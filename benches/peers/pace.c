/* An open-loop DNS load: sends queries at a fixed rate, whatever comes back, and says what became of each. Never sleeps,
 * so it wants a core of its own. Each answer is checked (questions.h).
 *
 *     pace -r RATE [-l SECONDS] ADDRESS PORT FILE
 *
 * Waits for what is late after the last query, then prints one line of JSON: `sent`, `answered` (rightly), `wrong`,
 * `stray`, `own_drops` (answers that reached this generator's socket when it was full), and the longest time that it was
 * behind its schedule. */

#define _GNU_SOURCE
#include "questions.h"

#include <linux/sock_diag.h>
#include <unistd.h>

static const double LATE_S = 0.7;
enum { IDS = 65536 };

/* The question under each message ID that is outstanding; answered ones have no more. */
static uint32_t asked[IDS];
static const uint32_t NONE = UINT32_MAX;
static uint64_t sent, answered, wrong, stray;

static void send_some(int fd, unsigned count) {
    static uint8_t wire[BATCH][QUERY];
    static struct iovec vector[BATCH];
    static struct mmsghdr out[BATCH];
    for (unsigned i = 0; i < count; i++) {
        uint16_t id = (uint16_t)(sent + i);
        asked[id] = pick();
        vector[i] = (struct iovec){wire[i], make_query(&questions[asked[id]], id, wire[i])};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &vector[i], .msg_iovlen = 1};
    }
    send_all(fd, out, count);
    sent += count;
}

static void receive_some(int fd) {
    static struct answers in;
    int n = receive(fd, &in, MSG_DONTWAIT);
    for (int i = 0; i < n; i++) {
        const uint8_t *wire = in.wire[i];
        unsigned length = in.message[i].msg_len;
        uint16_t id = (uint16_t)(wire[0] << 8 | wire[1]);
        if (length < HEADER || asked[id] == NONE) {
            stray++;
            continue;
        }
        const struct question *q = &questions[asked[id]];
        if (is_right(wire, length, q, wires + q->at)) answered++;
        else wrong++;
        asked[id] = NONE;
    }
}

int main(int argc, char **argv) {
    double rate = 0, limit = 1;
    int option;
    while ((option = getopt(argc, argv, "r:l:")) != -1) {
        switch (option) {
        case 'r': rate = atof(optarg); break;
        case 'l': limit = atof(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 3 || rate < 1 || rate > 5e6 || limit <= 0 || limit > 600) {
        fprintf(stderr, "usage: pace -r RATE [-l SECONDS] ADDRESS PORT FILE\n");
        return 2;
    }
    read_questions(argv[optind + 2]);
    int fd = connected(argv[optind], argv[optind + 1]);
    for (unsigned i = 0; i < IDS; i++) asked[i] = NONE;

    double begun = now(), behind = 0, t;
    while ((t = now()) < begun + limit) {
        double due = (t - begun) * rate - (double)sent;
        if (due / rate > behind) behind = due / rate;
        if (due >= 1) send_some(fd, due < BATCH ? (unsigned)due : BATCH);
        receive_some(fd);
    }
    double ended = now();
    while (now() < ended + LATE_S) receive_some(fd);
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;
    getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size);
    printf("{\"sent\": %llu, \"answered\": %llu, \"wrong\": %llu, \"stray\": %llu, \"own_drops\": %u, "
           "\"behind_ms\": %.2f, \"seconds\": %.4f}\n",
           (unsigned long long)sent, (unsigned long long)answered, (unsigned long long)wrong,
           (unsigned long long)stray, memory[SK_MEMINFO_DROPS], behind * 1000, ended - begun);
    return 0;
}
