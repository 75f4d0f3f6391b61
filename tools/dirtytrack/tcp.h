/* SPDX-License-Identifier: GPL-2.0-only */
/* What both ends of a connection ask of TCP. */
#ifndef TCP_H
#define TCP_H

/*
 * The host at the other end may vanish without a word: after 5 seconds of silence it is asked
 * each 5, and the connection ends when it did not answer @probes times, or did not acknowledge
 * what was sent for as long.  Of a socket that listens, those that it accepts inherit it; on a
 * Unix socket, where nobody vanishes, it does nothing.
 */
void tcp_notice_silence(int fd, int probes);

#endif
