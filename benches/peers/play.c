/* Plays prepared HTTP requests over kept connections, pipelined, at a fixed rate or as fast as they are taken. It costs
 * so little that it can share the generator's core: the load that changes a registry while its DNS is measured.
 *
 *     play [-r RATE] [-l SECONDS] [-c CONNECTIONS] ADDRESS PORT FILE
 *
 * FILE holds requests, each behind a line with its number of octets. Without a rate they are played once through, else
 * round and round until SECONDS are over. Request I goes over connection I modulo CONNECTIONS, so those to one thing keep their
 * order. Prints one line of JSON: `sent`, `ok` (status 200), `refused`, `seconds`. */

#define _GNU_SOURCE
#include "questions.h"

#include <ctype.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

enum { CONNECTIONS = 64, DEPTH = 64, ROOM = 1 << 16, TICK_MS = 10 };

struct request {
    char *text;
    size_t length;
};

/* What waits to be written, and what was read of answers that are not whole yet. */
struct connection {
    int fd;
    unsigned outstanding;
    char *out;
    size_t out_used, out_room, in_used;
    char in[ROOM];
};

static struct request *requests;
static size_t request_count;
static struct connection connections[CONNECTIONS];
static uint64_t ok, refused;

static void read_requests(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) fail(path);
    size_t room = 0, length;
    while (fscanf(file, "%zu", &length) == 1 && fgetc(file) == '\n' && length <= ROOM * 16) {
        if (request_count == room) requests = realloc(requests, (room = room ? room * 2 : 1024) * sizeof *requests);
        char *text = malloc(length);
        if (!requests || !text || fread(text, 1, length, file) != length) fail("reading requests");
        requests[request_count++] = (struct request){text, length};
    }
    fclose(file);
    if (request_count == 0) fail("no requests");
}

static void put(struct connection *c, const struct request *r) {
    if (c->out_used + r->length > c->out_room) {
        c->out_room = (c->out_used + r->length) * 2;
        if (!(c->out = realloc(c->out, c->out_room))) fail("memory");
    }
    memcpy(c->out + c->out_used, r->text, r->length);
    c->out_used += r->length;
    c->outstanding++;
}

static void write_some(struct connection *c) {
    ssize_t n = c->out_used ? write(c->fd, c->out, c->out_used) : 0;
    if (n < 0 && errno != EAGAIN && errno != EINTR) fail("write");
    if (n <= 0) return;
    memmove(c->out, c->out + n, c->out_used - (size_t)n);
    c->out_used -= (size_t)n;
}

/* Octets of the first whole answer in `in`, or 0. */
static size_t answer(struct connection *c) {
    char *end = memmem(c->in, c->in_used, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end - c->in) + 4, body = 0;
    *end = 0;
    char *length = strcasestr(c->in, "content-length:");
    if (length) body = strtoul(length + 15, NULL, 10);
    int whole = head + body <= c->in_used;
    if (whole && strncmp(c->in, "HTTP/1.1 200", 12) == 0) ok++;
    else if (whole && !refused++) fprintf(stderr, "play: %.12s: %.*s\n", c->in, (int)body, c->in + head);
    *end = '\r';
    return whole ? head + body : 0;
}

static void read_some(struct connection *c) {
    ssize_t n = read(c->fd, c->in + c->in_used, ROOM - c->in_used);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) fail("the server closed a connection");
    if (n < 0) return;
    c->in_used += (size_t)n;
    for (size_t size; (size = answer(c)) > 0;) {
        memmove(c->in, c->in + size, c->in_used - size);
        c->in_used -= size;
        c->outstanding--;
    }
}

static void open_connection(struct connection *c, const char *address, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1 || ntohl(to.sin_addr.s_addr) >> 24 != 127) {
        fprintf(stderr, "%s is not a loopback address\n", address);
        exit(2);
    }
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

int main(int argc, char **argv) {
    double rate = 0, limit = 600;
    unsigned count = 8;
    int option;
    while ((option = getopt(argc, argv, "r:l:c:")) != -1) {
        switch (option) {
        case 'r': rate = atof(optarg); break;
        case 'l': limit = atof(optarg); break;
        case 'c': count = (unsigned)atoi(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 3 || count < 1 || count > CONNECTIONS || rate < 0 || limit <= 0 || limit > 600) {
        fprintf(stderr, "usage: play [-r RATE] [-l SECONDS] [-c 1..64] ADDRESS PORT FILE\n");
        return 2;
    }
    read_requests(argv[optind + 2]);
    struct pollfd polled[CONNECTIONS];
    for (unsigned i = 0; i < count; i++) {
        open_connection(&connections[i], argv[optind], argv[optind + 1]);
        polled[i] = (struct pollfd){.fd = connections[i].fd};
    }
    uint64_t sent = 0;
    double begun = now(), t;
    while ((t = now()) < begun + limit) {
        uint64_t due = rate > 0 ? (uint64_t)((t - begun) * rate) : request_count;
        while (sent < due && connections[sent % count].outstanding < DEPTH) {
            put(&connections[sent % count], &requests[sent % request_count]);
            sent++;
        }
        if (rate == 0 && ok + refused == request_count) break;
        for (unsigned i = 0; i < count; i++) {
            write_some(&connections[i]);
            polled[i].events = (short)(POLLIN | (connections[i].out_used ? POLLOUT : 0));
        }
        /* At a rate it wakes with the clock, not with each answer: each time costs the DNS generator its core. */
        if (rate > 0) usleep(TICK_MS * 1000);
        if (poll(polled, count, rate > 0 ? 0 : 1000) < 0 && errno != EINTR) fail("poll");
        for (unsigned i = 0; i < count; i++)
            if (polled[i].revents) read_some(&connections[i]);
    }
    printf("{\"sent\": %llu, \"ok\": %llu, \"refused\": %llu, \"seconds\": %.4f}\n", (unsigned long long)sent,
           (unsigned long long)ok, (unsigned long long)refused, now() - begun);
    return 0;
}
