/* The questions that a generator asks, and whether an answer is the right one.
 *
 * A file has a line "NAME TYPE RCODE ANCOUNT" for each question (TYPE: A, AAAA, MX, SRV or TXT). An answer is right
 * when it repeats the question octet for octet and has QR, that code, that number of answer records, and no TC. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { HEADER = 12, QUERY = 320, ANSWER = 4096, BATCH = 64 };

struct question {
    uint32_t at; /* of its wire form in `wires` */
    uint16_t length;
    uint16_t ancount;
    uint8_t rcode;
};

static struct question *questions;
static uint32_t question_count;
static uint8_t *wires;
/* What is sent with each: an OPT record, a client cookie in it (RFC 7873), letters of random case (0x20). */
static int edns, cookie, mixed;
static uint64_t seed = 0x9e3779b97f4a7c15u;

static inline void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline uint64_t chance(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static inline uint32_t pick(void) { return (uint32_t)((chance() >> 32) % question_count); }

/* The wire form of one line: a header with RD, as every stub sets it, and the question. 0 when the line is no good. */
static inline unsigned encode(char *line, uint8_t *wire, struct question *q) {
    static const struct { const char *name; uint8_t number; } types[] = {
        {"A", 1}, {"MX", 15}, {"TXT", 16}, {"AAAA", 28}, {"SRV", 33}};
    char name[256], type[16];
    unsigned rcode, count;
    if (sscanf(line, "%255s %15s %u %u", name, type, &rcode, &count) != 4) return 0;
    memset(wire, 0, HEADER);
    wire[2] = 0x01;
    wire[5] = 1;
    uint8_t *at = wire + HEADER;
    char *rest = NULL;
    for (char *label = strtok_r(name, ".", &rest); label; label = strtok_r(NULL, ".", &rest)) {
        size_t length = strlen(label);
        if (length > 63) return 0;
        *at++ = (uint8_t)length;
        memcpy(at, label, length);
        at += length;
    }
    *at++ = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(type, types[i].name) != 0) continue;
        memcpy(at, (uint8_t[]){0, types[i].number, 0, 1}, 4);
        *q = (struct question){0, (uint16_t)(at + 4 - wire), (uint16_t)count, (uint8_t)rcode};
        return q->length;
    }
    return 0;
}

static inline void read_questions(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) fail(path);
    size_t room = 0, used = 0, wire_room = 0;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        if (question_count == room) questions = realloc(questions, (room = room ? room * 2 : 1024) * sizeof *questions);
        if (used + QUERY > wire_room) wires = realloc(wires, wire_room = wire_room * 2 + (1 << 16));
        if (!questions || !wires) fail("memory");
        unsigned length = encode(line, wires + used, &questions[question_count]);
        if (!length) {
            fprintf(stderr, "%s:%u: not NAME TYPE RCODE ANCOUNT\n", path, question_count + 1);
            exit(1);
        }
        questions[question_count++].at = (uint32_t)used;
        used += length;
    }
    fclose(file);
    if (question_count == 0) {
        fprintf(stderr, "%s: no questions\n", path);
        exit(1);
    }
}

/* Writes a query with this ID; returns its length. */
static inline unsigned make_query(const struct question *q, uint16_t id, uint8_t *wire) {
    memcpy(wire, wires + q->at, q->length);
    wire[0] = (uint8_t)(id >> 8);
    wire[1] = (uint8_t)id;
    if (mixed) {
        uint64_t bits = chance();
        for (unsigned i = HEADER; i + 5 < q->length; i++, bits = bits >> 1 | bits << 63)
            if ((wire[i] | 0x20) >= 'a' && (wire[i] | 0x20) <= 'z') wire[i] ^= (uint8_t)((bits & 1) << 5);
    }
    if (!edns) return q->length;
    wire[11] = 1;
    static const uint8_t opt[11] = {0, 0, 41, 1232 >> 8, 1232 & 255, 0, 0, 0, 0, 0, 0};
    memcpy(wire + q->length, opt, sizeof opt);
    if (!cookie) return q->length + sizeof opt;
    uint8_t *at = wire + q->length + sizeof opt;
    at[-1] = 12;
    memcpy(at, (uint8_t[]){0, 10, 0, 8}, 4);
    uint64_t value = chance();
    memcpy(at + 4, &value, 8);
    return q->length + sizeof opt + 12;
}

/* `query` is what was sent for `q`. Says what was wrong with the first that is. */
static inline int is_right(const uint8_t *answer, unsigned length, const struct question *q, const uint8_t *query) {
    static int told;
    int right = length >= q->length && (answer[2] & 0x80) && !(answer[2] & 0x02) && (answer[3] & 0x0f) == q->rcode &&
                (answer[6] << 8 | answer[7]) == q->ancount &&
                memcmp(answer + HEADER, query + HEADER, q->length - HEADER) == 0;
    if (!right && !told++)
        fprintf(stderr, "wrong: %s: %u octets, flags %02x%02x (rcode %u wanted), %u answers (%u wanted)\n",
                (const char *)query + HEADER, length, answer[2], answer[3], q->rcode, answer[6] << 8 | answer[7],
                q->ancount);
    return right;
}

/* Sends a whole batch on a connected socket. */
static inline void send_all(int fd, struct mmsghdr *out, unsigned count) {
    for (unsigned done = 0; done < count;) {
        int n = sendmmsg(fd, out + done, count - done, 0);
        if (n < 0 && errno != EINTR && errno != ECONNREFUSED && errno != ENOBUFS) fail("sendmmsg");
        if (n > 0) done += (unsigned)n;
    }
}

/* Takes the answers that have come, as many as fit into a batch; `flags` say whether it waits for the first. 0 when there
 * are none. */
struct answers {
    uint8_t wire[BATCH][ANSWER];
    struct iovec vector[BATCH];
    struct mmsghdr message[BATCH];
};

static inline int receive(int fd, struct answers *in, int flags) {
    for (int i = 0; i < BATCH; i++) {
        in->vector[i] = (struct iovec){in->wire[i], ANSWER};
        in->message[i].msg_hdr = (struct msghdr){.msg_iov = &in->vector[i], .msg_iovlen = 1};
    }
    int n = recvmmsg(fd, in->message, BATCH, flags, NULL);
    if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED) fail("recvmmsg");
    return n < 0 ? 0 : n;
}

/* A socket connected to a port of a loopback address: nothing else is ever a target. */
static inline int connected(const char *address, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1 || ntohl(to.sin_addr.s_addr) >> 24 != 127) {
        fprintf(stderr, "%s is not a loopback address\n", address);
        exit(2);
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 16 * 1024 * 1024;
    if (fd < 0) fail("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    return fd;
}
