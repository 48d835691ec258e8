/*
 * The bench's stopwatch: one small static process per cgroup layout, told by bench.py what to run, which starts it,
 * waits for it and answers with wall time, CPU time and peak memory.
 *
 *   spawner LAYOUT LOG
 *
 * LAYOUT: hybrid (the machine's own), v1 (the v2 side mount gone), v2 (pure cgroup2), made in a private mount
 * namespace. LOG: takes the output of everything started; emptied before each sample.
 *
 * One line per step, fields separated by 0x1f; nothing runs before G:
 *   X argv...   start and wait for it
 *   B argv...   start, do not wait
 *   R count     wait for `count` more children: those of B, and orphans, which come here (child subreaper)
 *   G           take the sample; answers "wall_ns cpu_us peak_kib status status ...", one status per X, B's in R's order
 *
 * It is small and static because a child's ru_maxrss never falls below what its parent had at exec; vfork, because
 * a fork would copy page tables inside the measured time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINE = 1 << 17, MAX_STEPS = 4096, MAX_ARGS = 32 };

struct step {
	char kind;
	int count;
	char *argv[MAX_ARGS];
};

static char lines[MAX_LINE];
static struct step steps[256];
static int statuses[MAX_STEPS];
static char *const ENV[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};

static _Noreturn void die(const char *what)
{
	dprintf(2, "spawner: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static void check(int result, const char *what)
{
	if (result < 0)
		die(what);
}

static void layout_cgroups(const char *layout)
{
	if (!strcmp(layout, "v1")) {
		check(umount2("/sys/fs/cgroup/unified", 0), "umount /sys/fs/cgroup/unified");
	} else if (!strcmp(layout, "v2")) {
		check(umount2("/sys/fs/cgroup", MNT_DETACH), "umount /sys/fs/cgroup");
		check(mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount cgroup2");
	}
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long micros(struct timeval t) { return t.tv_sec * 1000000LL + t.tv_usec; }

static long long children_cpu(void)
{
	struct rusage usage;
	getrusage(RUSAGE_CHILDREN, &usage);
	return micros(usage.ru_utime) + micros(usage.ru_stime);
}

/* vfork: until the exec the child borrows this memory, so it only executes or exits. */
static pid_t start(char *const argv[])
{
	pid_t pid = vfork();
	if (pid == 0) {
		execve(argv[0], argv, ENV);
		_exit(127);
	}
	check(pid, "vfork");
	return pid;
}

static int status_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

static int wait_for(pid_t pid, long *peak)
{
	struct rusage usage;
	int status;
	pid_t done;
	do
		done = wait4(pid, &status, __WALL, &usage);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return 126;
	if (usage.ru_maxrss > *peak)
		*peak = usage.ru_maxrss;
	return status_of(status);
}

static void sample(int n, int out, int log)
{
	static char answer[MAX_STEPS * 4 + 128];
	long peak = 0;
	int seen = 0, length;

	check(ftruncate(log, 0), "empty the log");
	long long cpu = children_cpu(), begin = now();
	for (int i = 0; i < n; i++) {
		struct step *s = &steps[i];
		if (s->kind == 'B') {
			start(s->argv);
		} else if (s->kind == 'X') {
			statuses[seen++] = wait_for(start(s->argv), &peak);
		} else {
			for (int k = 0; k < s->count; k++)
				statuses[seen++] = wait_for(-1, &peak);
		}
	}
	long long wall = now() - begin;
	cpu = children_cpu() - cpu;
	length = snprintf(answer, sizeof answer, "%lld %lld %ld", wall, cpu, peak);
	for (int i = 0; i < seen; i++)
		length += snprintf(answer + length, sizeof answer - (size_t)length, " %d", statuses[i]);
	answer[length++] = '\n';
	if (write(out, answer, (size_t)length) != length)
		die("write the answer");
}

static void parse(char *line, struct step *s)
{
	int n = 0;
	s->kind = line[0];
	char *field = line[1] ? line + 2 : line + 1;
	if (s->kind == 'R') {
		s->count = atoi(field);
		return;
	}
	while (field && n < MAX_ARGS - 1) {
		s->argv[n++] = field;
		field = strchr(field, 0x1f);
		if (field)
			*field++ = '\0';
	}
	s->argv[n] = NULL;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	int in = fcntl(0, F_DUPFD_CLOEXEC, 10), out = fcntl(1, F_DUPFD_CLOEXEC, 10);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int log = open(argv[2], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	check(in < 0 || out < 0 || null < 0 || log < 0 ? -1 : 0, "open");
	check(unshare(CLONE_NEWNS), "unshare");
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make / private");
	layout_cgroups(argv[1]);
	check(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become a subreaper");
	check(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "die with the driver");
	check(dup2(null, 0), "dup2");
	check(dup2(log, 1), "dup2");
	check(dup2(log, 2), "dup2");
	check(write(out, "ready\n", 6) == 6 ? 0 : -1, "write");

	size_t used = 0;
	int n = 0;
	char *line = lines;
	for (;;) {
		char *end = memchr(line, '\n', used - (size_t)(line - lines));
		if (!end) {
			if (used == sizeof lines) {
				errno = E2BIG;
				die("read");
			}
			ssize_t got = read(in, lines + used, sizeof lines - used);
			if (got <= 0)
				return 0;
			used += (size_t)got;
			continue;
		}
		*end = '\0';
		if (*line != 'G') {
			if (n == (int)(sizeof steps / sizeof *steps)) {
				errno = E2BIG;
				die("steps");
			}
			parse(line, &steps[n++]);
			line = end + 1;
			continue;
		}
		/* G ends the batch: the driver sends nothing more before it has the answer. */
		sample(n, out, log);
		n = 0;
		used = 0;
		line = lines;
	}
}
