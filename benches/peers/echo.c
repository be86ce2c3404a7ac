/* The floor under every UDP server: gives each datagram back as it came, with recvmmsg and sendmmsg, 32 at a time.
 * What it costs is the kernel's part, which no DNS server can go below.
 *
 *     echo PORT          on 127.0.0.1; runs until it is killed */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BATCH = 32, SIZE = 4096 };

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int room = 4 * 1024 * 1024;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0) {
        perror("echo");
        return 1;
    }
    static uint8_t wire[BATCH][SIZE];
    static struct sockaddr_in from[BATCH];
    static struct iovec vector[BATCH];
    static struct mmsghdr message[BATCH];
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            vector[i] = (struct iovec){wire[i], SIZE};
            message[i].msg_hdr = (struct msghdr){
                .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &vector[i], .msg_iovlen = 1};
        }
        int n = recvmmsg(fd, message, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < n; i++) vector[i].iov_len = message[i].msg_len;
        for (int done = 0; done < n;) {
            int m = sendmmsg(fd, message + done, (unsigned)(n - done), 0);
            done += m > 0 ? m : 1;
        }
    }
}
