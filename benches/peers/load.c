/* A closed-loop DNS load: keeps a fixed number of queries outstanding on one connected UDP socket, moving them with
 * recvmmsg and sendmmsg, so that the generator costs less than any server it asks. Each answer is checked: it has to
 * be the right answer (questions.h) to a query that is outstanding.
 *
 *     load [-n] [-e] [-c] [-x] [-o OUTSTANDING] [-l SECONDS] ADDRESS PORT FILE
 *
 * -e sends EDNS(0), -c a client cookie in it, -x letters of random case; -n does not check answers (for a bare echo).
 * Ends after SECONDS and prints one line of JSON. */

#define _GNU_SOURCE
#include "questions.h"

#include <sys/time.h>
#include <unistd.h>

enum { SLOTS = 256, LOST_MS = 1000, QUIET_MS = 50 };

/* A slot is one outstanding query. The low byte of its message ID is its number, the high byte its generation, so a
 * late answer to a query that was given up is told from the answer to the present one. */
struct slot {
    uint16_t id;
    uint32_t question;
    int64_t sent_ms;
    uint8_t wire[QUERY];
};

static struct slot slots[SLOTS];
static uint64_t answered, lost, wrong, stray, octets;
static struct iovec out_vector[BATCH];
static struct mmsghdr out[BATCH];
static unsigned out_count;

static void flush_out(int fd) {
    send_all(fd, out, out_count);
    out_count = 0;
}

/* Puts a new question into a slot and into the batch. */
static void ask(int fd, uint32_t number, int64_t ms) {
    struct slot *slot = &slots[number];
    slot->id = (uint16_t)((slot->id + SLOTS) & 0xff00) | (uint16_t)number;
    slot->question = pick();
    slot->sent_ms = ms;
    unsigned length = make_query(&questions[slot->question], slot->id, slot->wire);
    out_vector[out_count] = (struct iovec){slot->wire, length};
    out[out_count].msg_hdr = (struct msghdr){.msg_iov = &out_vector[out_count], .msg_iovlen = 1};
    if (++out_count == BATCH) flush_out(fd);
}

int main(int argc, char **argv) {
    unsigned outstanding = 200;
    double limit = 1;
    int option, check = 1;
    while ((option = getopt(argc, argv, "necxo:l:")) != -1) {
        switch (option) {
        case 'n': check = 0; break;
        case 'e': edns = 1; break;
        case 'c': edns = cookie = 1; break;
        case 'x': mixed = 1; break;
        case 'o': outstanding = (unsigned)atoi(optarg); break;
        case 'l': limit = atof(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 3 || outstanding < 1 || outstanding > SLOTS || limit <= 0 || limit > 600) {
        fprintf(stderr, "usage: load [-n] [-e] [-c] [-x] [-o 1..256] [-l SECONDS] ADDRESS PORT FILE\n");
        return 2;
    }
    read_questions(argv[optind + 2]);
    int fd = connected(argv[optind], argv[optind + 1]);
    struct timeval quiet = {.tv_usec = QUIET_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);

    static struct answers in;
    double begun = now(), end = begun + limit, last_scan = begun;
    for (unsigned i = 0; i < outstanding; i++) ask(fd, i, 0);
    flush_out(fd);
    for (;;) {
        int n = receive(fd, &in, MSG_WAITFORONE);
        double t = now();
        if (t >= end) {
            end = t;
            break;
        }
        int64_t ms = (int64_t)((t - begun) * 1000);
        for (int i = 0; i < n; i++) {
            const uint8_t *wire = in.wire[i];
            unsigned length = in.message[i].msg_len;
            uint32_t number = wire[1];
            uint16_t id = (uint16_t)(wire[0] << 8 | wire[1]);
            if (length < HEADER || number >= outstanding || slots[number].id != id) {
                stray++;
                continue;
            }
            struct slot *slot = &slots[number];
            if (!check || is_right(wire, length, &questions[slot->question], slot->wire)) answered++;
            else wrong++;
            octets += length;
            ask(fd, number, ms);
        }
        if (t - last_scan > QUIET_MS / 1000.0) {
            last_scan = t;
            for (unsigned i = 0; i < outstanding; i++) {
                if (ms - slots[i].sent_ms < LOST_MS) continue;
                lost++;
                ask(fd, i, ms);
            }
        }
        flush_out(fd);
    }
    uint64_t all = answered + wrong;
    printf("{\"answered\": %llu, \"lost\": %llu, \"wrong\": %llu, \"stray\": %llu, \"octets\": %.1f, "
           "\"seconds\": %.4f}\n",
           (unsigned long long)answered, (unsigned long long)lost, (unsigned long long)wrong,
           (unsigned long long)stray, all ? (double)octets / (double)all : 0, end - begun);
    return 0;
}
