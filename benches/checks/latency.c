/* How long a DNS server takes for an answer: asks one question after another on one connected UDP socket, a random line
 * of a file each time, and prints the distribution as one line of JSON.
 *
 *     latency ADDRESS PORT FILE ANCOUNT SECONDS PAUSE_US
 *
 * FILE has a name a line; type A is asked, and every answer must have NOERROR and ANCOUNT records. A pause between an
 * answer and the next question keeps the load of the questions themselves low; 0 is none. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NAME = 256, NAMES_MAX = 1 << 20, SAMPLES_MAX = 1 << 22, LOST_MS = 1000 };

static uint8_t (*names)[NAME];
static uint32_t *samples, sample_count;

static void fail(const char *what) {
    fprintf(stderr, "latency: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static size_t encode(uint8_t *to, const char *name) {
    uint8_t *at = to;
    while (*name) {
        size_t length = strcspn(name, ".");
        *at++ = (uint8_t)length;
        memcpy(at, name, length);
        at += length;
        name += length + (name[length] == '.');
    }
    *at++ = 0;
    return (size_t)(at - to);
}

static size_t read_names(const char *path) {
    FILE *file = fopen(path, "r");
    char line[NAME - 2];
    size_t count = 0;
    names = calloc(NAMES_MAX, sizeof *names);
    if (!file || !names) fail(path);
    while (count < NAMES_MAX && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        encode(names[count++], line);
    }
    fclose(file);
    if (count == 0) fail("no names");
    return count;
}

/* The time at a part of the sorted samples, in microseconds. */
static double at_part(double part) {
    if (sample_count == 0) return 0;
    uint32_t at = (uint32_t)(part * sample_count);
    return samples[at < sample_count ? at : sample_count - 1] / 1e3;
}

int main(int count, char **words) {
    if (count != 7) {
        fprintf(stderr, "latency ADDRESS PORT FILE ANCOUNT SECONDS PAUSE_US\n");
        return 2;
    }
    size_t known = read_names(words[3]);
    unsigned wanted = (unsigned)atoi(words[4]), pause_us = (unsigned)atoi(words[6]);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (!samples) fail("memory");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[2]))};
    if (inet_aton(words[1], &to.sin_addr) == 0) fail(words[1]);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval patience = {.tv_sec = LOST_MS / 1000};
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    /* A pause is as long as it says. */
    prctl(PR_SET_TIMERSLACK, 1000);

    uint64_t begun = now_ns(), end = begun + (uint64_t)(atof(words[5]) * 1e9), seed = begun | 1;
    uint32_t lost = 0, wrong = 0;
    uint16_t id = 0;
    while (sample_count < SAMPLES_MAX && now_ns() < end) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        uint8_t query[12 + NAME + 4] = {0}, answer[4096];
        const uint8_t *name = names[(seed >> 20) % known];
        size_t length = strlen((const char *)name) + 1;
        id++;
        query[0] = (uint8_t)(id >> 8), query[1] = (uint8_t)id, query[2] = 1, query[5] = 1;
        memcpy(query + 12, name, length);
        query[12 + length + 1] = 1, query[12 + length + 3] = 1;
        uint64_t sent = now_ns();
        if (send(fd, query, 12 + length + 4, 0) < 0) fail("send");
        ssize_t got;
        do got = recv(fd, answer, sizeof answer, 0);
        while (got >= 12 && (answer[0] != query[0] || answer[1] != query[1]));
        if (got < 12) {
            lost++;
            continue;
        }
        samples[sample_count++] = (uint32_t)(now_ns() - sent);
        wrong += (answer[3] & 15) != 0 || (unsigned)(answer[6] << 8 | answer[7]) != wanted;
        if (pause_us) usleep(pause_us);
    }
    double took = (double)(now_ns() - begun) / 1e9;
    qsort(samples, sample_count, sizeof *samples, by_size);
    printf("{\"asked\": %u, \"lost\": %u, \"wrong\": %u, \"seconds\": %.3f, \"p50_us\": %.1f, \"p90_us\": %.1f, "
           "\"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           sample_count, lost, wrong, took, at_part(0.5), at_part(0.9), at_part(0.99), at_part(0.999), at_part(1));
    return 0;
}
