/* Reads token files in one of several ways, and counts what no reader may see.
 *
 *     reader WAY PAUSE FORMAT:PATH...
 *
 * PAUSE is in microseconds, after each read. Every 100 ms, and at SIGTERM, it prints a line: reads, refreshes seen,
 * torn, absent, expired and older ones, and the shortest remaining lifetime seen (ms). A fault is a line of its own,
 * and so is each read that was closer to an expiry than all before.
 *
 * A token is expired only if its expiry had passed before the file was opened. So a reader that is paused between its
 * look at the clock and the read, however long, never blames the file. See tests/support/minted.py for the tokens.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST 65536
#define SHORTEST 48 /* of a token */
#define SHOWN 3 /* faults of each file; more of them say nothing new */
#define EVENT_WITHIN 10000 /* ms: a rename queues its event before it returns; this is for a paused writer */

struct file {
	char format[16];
	const char *path, *name;
	long number, held; /* of the token seen last, and of the one that the descriptor is open on */
	int fd, watch, faults;
	struct stat seen;
};
static long reads, refreshes, torn, absent, expired, older, least = 1L << 40;
static volatile sig_atomic_t ended;
static char buffer[MOST];

static void end(int signal) { (void)signal; ended = 1; }

static long clock_ms(clockid_t id)
{
	struct timespec now;
	clock_gettime(id, &now);
	return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static void fault(long *count, const char *what, struct file *file, long number)
{
	++*count;
	if (file->faults++ < SHOWN)
		printf("fault %s %s: token %ld after %ld at %ld\n", what, file->path, number, file->number,
		       clock_ms(CLOCK_BOOTTIME));
}

static unsigned crc32(const char *text, size_t length)
{
	unsigned crc = ~0U;
	for (size_t i = 0; i < length; i++) {
		crc ^= (unsigned char)text[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
	}
	return ~crc;
}

/* The length of the whole token at `text`, or 0. */
static size_t token(const char *text, size_t room, long *number, long *expires)
{
	char head[64], word[16];
	long length;
	if (room < SHORTEST)
		return 0;
	snprintf(head, sizeof head, "%.*s", SHORTEST, text);
	if (sscanf(head, "%9ld.%15ld.%5ld.", number, expires, &length) != 3)
		return 0;
	int size = snprintf(head, sizeof head, "%ld.%ld.%ld", *number, *expires, length);
	if (length < size + 10 || (size_t)length > room || memcmp(text, head, size) != 0 || text[size] != '.')
		return 0;
	snprintf(word, sizeof word, "%08x-", crc32(head, size));
	const char *body = text + size + 1;
	size_t rest = length - size - 1;
	/* It begins with the word, and repeats itself after the length of one. */
	if (memcmp(body, word, 9) != 0 || memcmp(body, body + 9, rest - 9) != 0)
		return 0;
	return length;
}

/* Whether the text at `at` is what a file has there; moves on. */
static int is(const char **at, const char *end, const char *expected)
{
	size_t length = strlen(expected);
	if ((size_t)(end - *at) < length || memcmp(*at, expected, length) != 0)
		return 0;
	*at += length;
	return 1;
}

/* Whether a file of this format is whole. */
static int whole(const char *format, const char *text, size_t size, long *number, long *expires)
{
	const char *at = text, *end = text + size;
	char last[64];
	size_t length;
	if (strcmp(format, "json") == 0) {
		static const char key[] = "\"access_token\": \"";
		if (!is(&at, end, "{") || !(at = memmem(text, size, key, sizeof key - 1)))
			return 0;
		at += sizeof key - 1;
		if (!(length = token(at, end - at, number, expires)))
			return 0;
		/* The document ends with its scope, which repeats the number. */
		int tail = snprintf(last, sizeof last, " n%ld\"}\n", *number);
		return at[length] == '"' && size > (size_t)tail && memcmp(end - tail, last, tail) == 0;
	}
	const char *before = strcmp(format, "header") == 0 ? "Authorization: Bearer " :
			     strcmp(format, "env") == 0 ? "TOKEN='" : strcmp(format, "template") == 0 ? "first=" : "";
	const char *after = strcmp(format, "header") == 0 ? "\n" : strcmp(format, "env") == 0 ? "'\n" : "";
	if (!is(&at, end, before) || !(length = token(at, end - at, number, expires)))
		return 0;
	const char *first = at;
	at += length;
	if (strcmp(format, "template") == 0) { /* the same token twice */
		if (!is(&at, end, "\nsecond=") || (size_t)(end - at) < length || memcmp(at, first, length) != 0)
			return 0;
		at += length;
		after = "\n";
	}
	return is(&at, end, after) && at == end;
}

/* Judge what was read. `before` is a moment before it was opened; 0 if the path may lead elsewhere by now. */
static void judge(struct file *file, const char *text, ssize_t size, long before)
{
	long number = 0, expires = 0;
	reads++;
	if (size <= 0 || !whole(file->format, text, size, &number, &expires)) {
		fault(&torn, size <= 0 ? "empty" : "torn", file, number);
		return;
	}
	if (!before)
		return;
	if (expires <= before)
		fault(&expired, "expired", file, number);
	if (expires - before < least) {
		least = expires - before;
		printf("closest %ld ms: token %ld in %s at %ld\n", least, number, file->path, before);
	}
	if (number < file->number)
		fault(&older, "older", file, number);
	refreshes += file->number && number > file->number;
	file->number = number;
}

static int opened(struct file *file)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		reads++;
		fault(&absent, strerror(errno), file, 0);
	}
	return fd;
}

static ssize_t all_of(int fd, size_t piece)
{
	size_t size = 0;
	ssize_t got;
	while (size < MOST && (got = read(fd, buffer + size, piece < MOST - size ? piece : MOST - size)) > 0)
		size += got;
	return size;
}

static void by_read(struct file *file, size_t piece)
{
	long before = clock_ms(CLOCK_BOOTTIME);
	int fd = opened(file);
	if (fd < 0)
		return;
	judge(file, buffer, all_of(fd, piece), before);
	close(fd);
}

static void by_mmap(struct file *file)
{
	long before = clock_ms(CLOCK_BOOTTIME);
	struct stat status;
	int fd = opened(file);
	if (fd < 0)
		return;
	fstat(fd, &status);
	char *text = status.st_size ? mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	judge(file, text, text == MAP_FAILED ? 0 : status.st_size, before);
	if (text != MAP_FAILED)
		munmap(text, status.st_size);
	close(fd);
}

/* Not by the inode alone: ext4 uses the number of a replaced file again at once. */
static int same(const struct stat *one, const struct stat *two)
{
	return one->st_ino == two->st_ino && one->st_mtim.tv_sec == two->st_mtim.tv_sec &&
	       one->st_mtim.tv_nsec == two->st_mtim.tv_nsec;
}

/* As a program that takes the size from stat, and reads so much. */
static void by_stat(struct file *file)
{
	long before = clock_ms(CLOCK_BOOTTIME);
	struct stat path, open;
	if (stat(file->path, &path) != 0) {
		reads++;
		fault(&absent, strerror(errno), file, 0);
		return;
	}
	int fd = opened(file);
	if (fd < 0)
		return;
	fstat(fd, &open);
	ssize_t size = all_of(fd, MOST);
	if (size != open.st_size || (same(&path, &open) && size != path.st_size))
		size = 0;
	judge(file, buffer, size, before);
	close(fd);
}

/* Keeps the file open until another one has its name, and reads it once more then: a file never changes. */
static void by_held(struct file *file)
{
	struct stat path, open;
	long before = clock_ms(CLOCK_BOOTTIME);
	if (file->fd < 0) {
		if ((file->fd = opened(file)) < 0)
			return;
		judge(file, buffer, pread(file->fd, buffer, MOST, 0), before);
		file->held = file->number;
		return;
	}
	fstat(file->fd, &open);
	/* Not by the time of change: a file that is written in place while it is open is no other file. */
	int still = stat(file->path, &path) == 0 && path.st_ino == open.st_ino;
	judge(file, buffer, pread(file->fd, buffer, MOST, 0), still ? before : 0);
	if (file->number != file->held)
		fault(&torn, "changed while open", file, file->held);
	if (!still) {
		close(file->fd);
		file->fd = -1;
	}
}

static void drain(int events, struct file *files, int count, size_t piece)
{
	_Alignas(struct inotify_event) char queue[65536];
	ssize_t size = read(events, queue, sizeof queue);
	for (char *at = queue; at < queue + size;) {
		struct inotify_event *event = (struct inotify_event *)at;
		for (int i = 0; i < count; i++)
			if (event->wd == files[i].watch && event->len && strcmp(event->name, files[i].name) == 0) {
				by_read(&files[i], piece);
				stat(files[i].path, &files[i].seen);
			}
		at += sizeof *event + event->len;
	}
}

/* Reads a file when its directory says that a rename replaced it. No replacement may go without an event. */
static void by_inotify(int events, struct file *files, int count)
{
	struct pollfd poller = {events, POLLIN, 0};
	struct stat now;
	if (poll(&poller, 1, 50) > 0) {
		drain(events, files, count, MOST);
		return;
	}
	for (int i = 0; i < count && !ended; i++) {
		if (stat(files[i].path, &now) == 0 && same(&now, &files[i].seen))
			continue;
		if (poll(&poller, 1, EVENT_WITHIN) <= 0)
			fault(&absent, "no event for", &files[i], 0);
		drain(events, files, count, MOST);
		return;
	}
}

static void report(void)
{
	printf("%ld %ld %ld %ld %ld %ld %ld\n", reads, refreshes, torn, absent, expired, older, least);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *way = argv[1];
	int pause = atoi(argv[2]), count = argc - 3, events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	struct file *files = calloc(count, sizeof *files);
	struct sigaction action = {.sa_handler = end};
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigaction(SIGTERM, &action, NULL);
	for (int i = 0; i < count; i++) {
		char *text = argv[i + 3], *colon = strchr(text, ':');
		snprintf(files[i].format, sizeof files[i].format, "%.*s", (int)(colon - text), text);
		files[i].path = colon + 1;
		files[i].name = strrchr(files[i].path, '/') + 1;
		files[i].fd = -1;
		char *directory = strndup(files[i].path, files[i].name - files[i].path);
		files[i].watch = inotify_add_watch(events, directory, IN_MOVED_TO);
		free(directory);
		by_read(&files[i], MOST);
		stat(files[i].path, &files[i].seen);
	}
	long next = 0;
	for (int i = 0; !ended; i = (i + 1) % count) {
		if (strcmp(way, "read") == 0)
			by_read(&files[i], MOST);
		else if (strcmp(way, "pieces") == 0)
			by_read(&files[i], 256);
		else if (strcmp(way, "mmap") == 0)
			by_mmap(&files[i]);
		else if (strcmp(way, "stat") == 0)
			by_stat(&files[i]);
		else if (strcmp(way, "held") == 0)
			by_held(&files[i]);
		else
			by_inotify(events, files, count);
		if (pause)
			usleep(pause);
		long now = clock_ms(CLOCK_MONOTONIC);
		if (now >= next) {
			report();
			next = now + 100;
		}
	}
	report();
	return 0;
}
