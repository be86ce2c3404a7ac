/* The targets of many health checks: listens on every port of a range on every address of a range, and answers each
 * request with a small 200 over a connection that is kept for as long as the client likes.
 *
 *     targets ADDRESS ADDRESSES PORT PORTS
 *
 * Prints "listening" when all are open. One thread and one epoll. A connection is accepted when its request has come
 * (TCP_DEFER_ACCEPT), so that it costs one wake-up and not two: the machine is shared with what is measured. A request
 * is taken to come in one piece, and its octets are not looked at. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, REQUEST = 4096, LISTENER = 1 << 30 };

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

static void fail(const char *what) {
    fprintf(stderr, "targets: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int epoll, int fd, uint32_t events, uint32_t mark) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)fd | mark};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void open_target(int epoll, uint32_t address, uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, seconds = 5;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) fail("bind");
    if (listen(fd, 128) < 0) fail("listen");
    watch(epoll, fd, EPOLLIN, LISTENER);
}

/* Answers what has come; 0 when the connection is over. */
static int serve(int fd) {
    char request[REQUEST];
    ssize_t got = recv(fd, request, sizeof request, 0);
    if (got < 0 && errno == EAGAIN) return 1;
    return got > 0 && send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) == (ssize_t)sizeof answer - 1;
}

static void accept_one(int epoll, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) fail("accept");
        return;
    }
    if (serve(fd)) watch(epoll, fd, EPOLLIN | EPOLLRDHUP, 0);
    else close(fd);
}

int main(int count, char **words) {
    if (count != 5) {
        fprintf(stderr, "targets ADDRESS ADDRESSES PORT PORTS\n");
        return 2;
    }
    struct in_addr first;
    if (inet_aton(words[1], &first) == 0) fail(words[1]);
    unsigned addresses = (unsigned)atoi(words[2]), port = (unsigned)atoi(words[3]), ports = (unsigned)atoi(words[4]);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) fail("getrlimit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) fail("raising the limit on open files");
    int epoll = epoll_create1(0);
    if (epoll < 0) fail("epoll_create");
    for (unsigned a = 0; a < addresses; a++)
        for (unsigned p = 0; p < ports; p++) open_target(epoll, ntohl(first.s_addr) + a, (uint16_t)(port + p));
    puts("listening");
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = (int)(events[i].data.u32 & ~(uint32_t)LISTENER);
            if (events[i].data.u32 & LISTENER) accept_one(epoll, fd);
            else if (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) || !serve(fd)) close(fd);
        }
    }
}
