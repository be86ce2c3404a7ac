/* A closed-loop DNS load: keeps a fixed number of queries outstanding on one connected UDP socket, moving them with
 * recvmmsg and sendmmsg, so that the generator costs less than any server it asks. Each answer is checked: it has to
 * be the answer to a query that is outstanding, with the rcode NOERROR, no TC, and the number of records that the
 * questions' file says.
 *
 *     load [-n] [-e] [-o OUTSTANDING] [-l SECONDS] [-m MAX] ADDRESS PORT FILE
 *
 * FILE has a line "NAME TYPE ANCOUNT" a question (TYPE: A or SRV). -e sends EDNS(0), -n does not check answers (for a
 * bare echo). Ends after SECONDS or MAX queries, whichever comes first, and prints one line of JSON. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SLOTS = 256, QUERY = 300, ANSWER = 4096, LOST_MS = 1000, QUIET_MS = 50 };

struct question {
    uint8_t wire[QUERY];
    uint16_t length;
    uint16_t ancount;
};

/* A slot is one outstanding query. The low byte of its message ID is its number, the high byte its generation, so a
 * late answer to a query that was given up is told from the answer to the present one. */
struct slot {
    uint16_t id;
    uint32_t question;
    int64_t sent_ms;
};

static struct question *questions;
static uint32_t question_count;
static struct slot slots[SLOTS];
static uint64_t sent, answered, dropped, wrong, stray;
static int check_answers = 1, edns = 0;
static uint64_t seed = 0x9e3779b97f4a7c15u;

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t pick(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 32) % question_count);
}

/* Writes the query for one line of the file; 0 when the line is no good. */
static int encode(struct question *q, char *line) {
    char name[256], type[16];
    int count;
    if (sscanf(line, "%255s %15s %d", name, type, &count) != 3) return 0;
    uint8_t *at = q->wire;
    memset(at, 0, 12);
    at[2] = 0x01; /* RD, as every stub sets it */
    at[5] = 1;
    at[11] = (uint8_t)edns;
    at += 12;
    char *rest = NULL;
    for (char *label = strtok_r(name, ".", &rest); label; label = strtok_r(NULL, ".", &rest)) {
        size_t length = strlen(label);
        if (length > 63) return 0;
        *at++ = (uint8_t)length;
        memcpy(at, label, length);
        at += length;
    }
    *at++ = 0;
    *at++ = 0;
    if (strcmp(type, "A") == 0) *at++ = 1;
    else if (strcmp(type, "SRV") == 0) *at++ = 33;
    else return 0;
    *at++ = 0;
    *at++ = 1;
    if (edns) {
        static const uint8_t opt[11] = {0, 0, 41, 1232 >> 8, 1232 & 255, 0, 0, 0, 0, 0, 0};
        memcpy(at, opt, sizeof opt);
        at += sizeof opt;
    }
    q->length = (uint16_t)(at - q->wire);
    q->ancount = (uint16_t)count;
    return 1;
}

static void read_questions(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) fail(path);
    size_t room = 0;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        if (question_count == room) {
            room = room ? room * 2 : 1024;
            questions = realloc(questions, room * sizeof *questions);
            if (!questions) fail("memory");
        }
        if (!encode(&questions[question_count], line)) {
            fprintf(stderr, "load: %s:%u: not NAME TYPE ANCOUNT\n", path, question_count + 1);
            exit(1);
        }
        question_count++;
    }
    fclose(file);
    if (question_count == 0) {
        fprintf(stderr, "load: %s: no questions\n", path);
        exit(1);
    }
}

/* Puts a new question into a slot. The ID is written when the datagram is made: slots share the questions. */
static void fill(uint32_t number, int64_t ms) {
    struct slot *slot = &slots[number];
    slot->id = (uint16_t)((slot->id + SLOTS) & 0xff00) | (uint16_t)number;
    slot->question = pick();
    slot->sent_ms = ms;
}

static uint8_t out_wire[BATCH][QUERY];
static struct iovec out_vector[BATCH];
static struct mmsghdr out[BATCH];
static unsigned out_count;

static void flush_out(int fd) {
    unsigned done = 0;
    while (done < out_count) {
        int n = sendmmsg(fd, out + done, out_count - done, 0);
        if (n < 0) {
            if (errno == EINTR || errno == ECONNREFUSED || errno == ENOBUFS) continue;
            fail("sendmmsg");
        }
        done += (unsigned)n;
    }
    sent += out_count;
    out_count = 0;
}

static void send_slot(int fd, uint32_t number) {
    struct slot *slot = &slots[number];
    const struct question *q = &questions[slot->question];
    memcpy(out_wire[out_count], q->wire, q->length);
    out_wire[out_count][0] = (uint8_t)(slot->id >> 8);
    out_wire[out_count][1] = (uint8_t)slot->id;
    out_vector[out_count] = (struct iovec){out_wire[out_count], q->length};
    out[out_count].msg_hdr = (struct msghdr){.msg_iov = &out_vector[out_count], .msg_iovlen = 1};
    if (++out_count == BATCH) flush_out(fd);
}

static int is_right(const uint8_t *wire, unsigned length, const struct question *q) {
    if (!check_answers) return 1;
    return length > q->length - (edns ? 11u : 0u) && (wire[2] & 0x80) && !(wire[2] & 0x02) && (wire[3] & 0x0f) == 0 &&
           (wire[6] << 8 | wire[7]) == q->ancount;
}

int main(int argc, char **argv) {
    unsigned outstanding = 200;
    double limit = 1;
    uint64_t most = 100 * 1000 * 1000;
    int option;
    while ((option = getopt(argc, argv, "neo:l:m:")) != -1) {
        switch (option) {
        case 'n': check_answers = 0; break;
        case 'e': edns = 1; break;
        case 'o': outstanding = (unsigned)atoi(optarg); break;
        case 'l': limit = atof(optarg); break;
        case 'm': most = strtoull(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (argc - optind != 3 || outstanding < 1 || outstanding > SLOTS || limit <= 0 || limit > 600) {
        fprintf(stderr, "usage: load [-n] [-e] [-o 1..256] [-l SECONDS] [-m MAX] ADDRESS PORT FILE\n");
        return 2;
    }
    read_questions(argv[optind + 2]);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[optind + 1]))};
    if (inet_pton(AF_INET, argv[optind], &to.sin_addr) != 1) fail(argv[optind]);
    if ((ntohl(to.sin_addr.s_addr) >> 24) != 127) {
        fprintf(stderr, "load: %s is not a loopback address\n", argv[optind]);
        return 2;
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) fail("socket");
    int room = 4 * 1024 * 1024;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    struct timeval quiet = {.tv_usec = QUIET_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");

    static uint8_t in_wire[BATCH][ANSWER];
    static struct iovec in_vector[BATCH];
    static struct mmsghdr in[BATCH];
    for (int i = 0; i < BATCH; i++) {
        in_vector[i] = (struct iovec){in_wire[i], ANSWER};
        in[i].msg_hdr = (struct msghdr){.msg_iov = &in_vector[i], .msg_iovlen = 1};
    }

    double begun = now(), end = begun + limit, last_scan = begun;
    for (unsigned i = 0; i < outstanding; i++) {
        fill(i, 0);
        send_slot(fd, i);
    }
    flush_out(fd);
    for (;;) {
        int n = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        double t = now();
        if (t >= end || sent >= most) {
            end = t;
            break;
        }
        int64_t ms = (int64_t)((t - begun) * 1000);
        for (int i = 0; i < n; i++) {
            uint32_t number = in_wire[i][1];
            uint16_t id = (uint16_t)(in_wire[i][0] << 8 | in_wire[i][1]);
            if (in[i].msg_len < 12 || number >= outstanding || slots[number].id != id) {
                stray++;
                continue;
            }
            if (is_right(in_wire[i], in[i].msg_len, &questions[slots[number].question])) answered++;
            else wrong++;
            fill(number, ms);
            send_slot(fd, number);
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED) fail("recvmmsg");
        if (t - last_scan > QUIET_MS / 1000.0) {
            last_scan = t;
            for (unsigned i = 0; i < outstanding; i++) {
                if (ms - slots[i].sent_ms < LOST_MS) continue;
                dropped++;
                fill(i, ms);
                send_slot(fd, i);
            }
        }
        flush_out(fd);
    }
    printf("{\"answered\": %llu, \"dropped\": %llu, \"wrong\": %llu, \"stray\": %llu, \"seconds\": %.4f}\n",
           (unsigned long long)answered, (unsigned long long)dropped, (unsigned long long)wrong,
           (unsigned long long)stray, end - begun);
    return 0;
}
