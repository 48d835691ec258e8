/*
 * The floor: the system calls that runc's default spec (`runc spec`) asks for, and nothing else.
 *
 * No parsing, no state, no checks of what the kernel answers beyond "did it fail", no sleep, no retry, no
 * allocation. bench.py measures every runtime against this program; FLOOR.md lists its calls in order.
 *
 *   floor run    LAYOUT CGROUP ROOTFS ARGV...        start, wait, remove the cgroup
 *   floor create LAYOUT CGROUP ROOTFS FIFO ARGV...   start up to the FIFO, leave the process behind
 *   floor start  FIFO                                open the FIFO for reading
 *   floor delete LAYOUT CGROUP FIFO                  remove the cgroup and the FIFO
 *   floor exec   LAYOUT CGROUP PID ARGV...           join PID's namespaces and cgroup, execute, wait
 *
 * LAYOUT is v1 or v2, CGROUP a path below each hierarchy, whose parent exists and (v1) has its cpuset filled.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

/* Fails with the call's source text: the floor has nothing else to say. */
#define DO(call) ((call) < 0 ? die(#call) : (void)0)

static _Noreturn void die(const char *call)
{
	dprintf(2, "floor: %s: %s\n", call, strerror(errno));
	_exit(125);
}

static char *const ENV[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};

/* Every hierarchy of the test machines; the v1 part of the issue counts nine. */
static const char *const V1[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"};
#define HIERARCHIES (int)(sizeof V1 / sizeof *V1)

static int v2;
static const char *cgroup;
static char path_buffer[512];

/* The cgroup's path in hierarchy `h` (of v2's single one when v2). */
static const char *cgroup_path(int h, const char *file)
{
	snprintf(path_buffer, sizeof path_buffer, "/sys/fs/cgroup/%s%s%s%s", v2 ? "" : V1[h], cgroup, *file ? "/" : "", file);
	return path_buffer;
}

static int hierarchies(void) { return v2 ? 1 : HIERARCHIES; }

static int clone3(uint64_t flags, int into)
{
	struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
	if (into >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)into;
	}
	return (int)syscall(SYS_clone3, &args, sizeof args);
}

/* One v1 cpuset file from its parent: a task cannot join a cpuset without CPUs and memory nodes. */
static void inherit_cpuset(const char *file)
{
	char value[256];
	int from, to;
	ssize_t n;
	char parent[512];
	snprintf(parent, sizeof parent, "/sys/fs/cgroup/cpuset%s/../%s", cgroup, file);
	DO(from = open(parent, O_RDONLY | O_CLOEXEC));
	DO(n = read(from, value, sizeof value));
	DO(to = open(cgroup_path(2, file), O_WRONLY | O_CLOEXEC));
	DO(write(to, value, (size_t)n));
	close(from);
	close(to);
}

static void make_cgroup(void)
{
	for (int h = 0; h < hierarchies(); h++)
		DO(mkdir(cgroup_path(h, ""), 0755));
	if (!v2) {
		inherit_cpuset("cpuset.cpus");
		inherit_cpuset("cpuset.mems");
	}
}

static void remove_cgroup(void)
{
	for (int h = 0; h < hierarchies(); h++)
		DO(rmdir(cgroup_path(h, "")));
}

/* "0" is the writer, and a single-threaded writer waits for no RCU grace period at `tasks`. */
static void join_v1(const int tasks[])
{
	for (int h = 0; h < HIERARCHIES; h++)
		DO(write(tasks[h], "0", 1));
}

static void open_tasks(int tasks[])
{
	for (int h = 0; h < HIERARCHIES; h++)
		DO(tasks[h] = open(cgroup_path(h, "tasks"), O_WRONLY | O_CLOEXEC));
}

static void move_to(int mnt, int root, const char *target)
{
	DO(move_mount(mnt, "", root, target, MOVE_MOUNT_F_EMPTY_PATH));
	close(mnt);
}

/* A detached new mount of `type`; `options` are key, value pairs, NULL-terminated. */
static int new_mount(const char *type, const char *const options[], unsigned attributes)
{
	int fs, mnt;
	DO(fs = fsopen(type, FSOPEN_CLOEXEC));
	DO(fsconfig(fs, FSCONFIG_SET_STRING, "source", type, 0));
	for (; *options; options += 2)
		DO(fsconfig(fs, options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options[0], options[1], 0));
	DO(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	DO(mnt = fsmount(fs, FSMOUNT_CLOEXEC, attributes));
	close(fs);
	return mnt;
}
#define MOUNT(root, target, type, attributes, ...) \
	move_to(new_mount(type, (const char *const[]){__VA_ARGS__ __VA_OPT__(,) NULL}, attributes), root, target)

static void set_attributes(int fd, const char *path, unsigned flags, uint64_t set)
{
	struct mount_attr attr = {.attr_set = set};
	DO(mount_setattr(fd, path, flags, &attr, sizeof attr));
}

static int detached_bind(int fd, const char *path, unsigned flags)
{
	return open_tree(fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

static void make_devices(int root)
{
	static const struct { const char *path; int major, minor; } NODES[] = {
		{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
		{"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
	};
	static const char *const LINKS[][2] = {
		{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
		{"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"},
	};
	for (size_t i = 0; i < sizeof NODES / sizeof *NODES; i++)
		DO(mknodat(root, NODES[i].path, S_IFCHR | 0666, makedev(NODES[i].major, NODES[i].minor)));
	for (size_t i = 0; i < sizeof LINKS / sizeof *LINKS; i++)
		DO(symlinkat(LINKS[i][0], root, LINKS[i][1]));
}

static void mount_all(int root, const int cgroups[])
{
	MOUNT(root, "proc", "proc", 0);
	MOUNT(root, "dev", "tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME, "mode", "755", "size", "65536k");
	DO(mkdirat(root, "dev/pts", 0755));
	MOUNT(root, "dev/pts", "devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
	      "newinstance", NULL, "ptmxmode", "0666", "mode", "0620", "gid", "5");
	DO(mkdirat(root, "dev/shm", 0755));
	MOUNT(root, "dev/shm", "tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV,
	      "mode", "1777", "size", "65536k");
	DO(mkdirat(root, "dev/mqueue", 0755));
	MOUNT(root, "dev/mqueue", "mqueue", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV);
	const unsigned sealed = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY;
	MOUNT(root, "sys", "sysfs", sealed);
	if (v2) {
		set_attributes(cgroups[0], "", AT_EMPTY_PATH, sealed);
		move_to(cgroups[0], root, "sys/fs/cgroup");
		return;
	}
	/* runc shows a v1 container a tmpfs with its own cgroup bound once per hierarchy. */
	MOUNT(root, "sys/fs/cgroup", "tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV, "mode", "755");
	for (int h = 0; h < HIERARCHIES; h++) {
		char target[64];
		snprintf(target, sizeof target, "sys/fs/cgroup/%s", V1[h]);
		DO(mkdirat(root, target, 0755));
		set_attributes(cgroups[h], "", AT_EMPTY_PATH, sealed);
		move_to(cgroups[h], root, target);
	}
	set_attributes(root, "sys/fs/cgroup", 0, MOUNT_ATTR_RDONLY);
}

static void cover(int target, int mnt)
{
	DO(move_mount(mnt, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

static void mask_paths(void)
{
	static const char *const READONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
	static const char *const MASKED_FILES[] = {"/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug"};
	static const char *const MASKED_DIRECTORIES[] = {"/proc/acpi", "/proc/asound", "/sys/firmware", "/proc/scsi"};

	for (size_t i = 0; i < sizeof READONLY / sizeof *READONLY; i++) {
		int mnt = detached_bind(AT_FDCWD, READONLY[i], AT_RECURSIVE);
		if (mnt < 0)
			continue; /* this kernel has no such file */
		set_attributes(mnt, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY);
		move_to(mnt, AT_FDCWD, READONLY[i]);
	}
	/* A path that is not there is found out before anything is mounted for it: closing a mount that went nowhere
	 * waits for an RCU grace period. */
	for (size_t i = 0; i < sizeof MASKED_FILES / sizeof *MASKED_FILES; i++) {
		int mnt, target = open(MASKED_FILES[i], O_PATH | O_CLOEXEC);
		if (target < 0)
			continue;
		DO(mnt = detached_bind(AT_FDCWD, "/dev/null", 0));
		cover(target, mnt);
		close(mnt);
		close(target);
	}
	int empty = -1;
	for (size_t i = 0; i < sizeof MASKED_DIRECTORIES / sizeof *MASKED_DIRECTORIES; i++) {
		int mnt, target = open(MASKED_DIRECTORIES[i], O_PATH | O_CLOEXEC);
		if (target < 0)
			continue;
		if (empty < 0)
			mnt = empty = new_mount("tmpfs", (const char *const[]){NULL}, MOUNT_ATTR_RDONLY);
		else
			DO(mnt = detached_bind(empty, "", AT_EMPTY_PATH));
		cover(target, mnt);
		close(target);
	}
}

/* What both a container's first process and an exec'd one get: rlimit, capabilities, no_new_privs, user. */
static void confine(void)
{
	const uint32_t keep = 1u << CAP_AUDIT_WRITE | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE;
	const struct rlimit files = {1024, 1024};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{.effective = keep, .permitted = keep}};

	DO(prlimit(0, RLIMIT_NOFILE, &files, NULL));
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (cap > 31 || !(keep >> cap & 1))
			DO(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
	DO(syscall(SYS_setgroups, 0, NULL));
	DO(syscall(SYS_setresgid, 0, 0, 0));
	DO(syscall(SYS_setresuid, 0, 0, 0));
	DO(syscall(SYS_capset, &header, data));
	DO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	DO(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	DO(chdir("/"));
}

static _Noreturn void execute(char **argv)
{
	umask(022);
	execve(argv[0], argv, ENV);
	die("execve");
}

struct container {
	const char *rootfs;
	char **argv;
	int fifo;  /* -1 for run */
	int ready; /* -1 for run */
};

static _Noreturn void child(const struct container *c, const int tasks[])
{
	int root, cgroups[HIERARCHIES];

	if (!v2)
		join_v1(tasks);
	DO(setsid());
	DO(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	for (int h = 0; h < hierarchies(); h++)
		DO(cgroups[h] = detached_bind(AT_FDCWD, cgroup_path(h, ""), 0));
	move_to(detached_bind(AT_FDCWD, c->rootfs, AT_RECURSIVE), AT_FDCWD, c->rootfs);
	DO(root = open(c->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC));
	mount_all(root, cgroups);
	make_devices(root);
	DO(sethostname("runc", 4));
	DO(fchdir(root));
	DO(syscall(SYS_pivot_root, ".", "."));
	DO(umount2(".", MNT_DETACH));
	DO(chdir("/"));
	set_attributes(AT_FDCWD, "/", 0, MOUNT_ATTR_RDONLY);
	mask_paths();
	if (c->fifo >= 0) {
		char fifo[32];
		int gate;
		snprintf(fifo, sizeof fifo, "/proc/self/fd/%d", c->fifo);
		DO(write(c->ready, "", 1));
		DO(close(c->ready));
		DO(gate = open(fifo, O_WRONLY | O_CLOEXEC));
		DO(write(gate, "0", 1));
	}
	confine();
	execute(c->argv);
}

static int spawn(const struct container *c)
{
	const uint64_t namespaces = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS;
	int dir, tasks[HIERARCHIES], pid;

	make_cgroup();
	/* runc's default spec asks for a cgroup namespace on v2 only. */
	if (v2) {
		DO(dir = open(cgroup_path(0, ""), O_PATH | O_DIRECTORY | O_CLOEXEC));
		pid = clone3(namespaces | CLONE_NEWCGROUP, dir);
	} else {
		open_tasks(tasks);
		pid = clone3(namespaces, -1);
	}
	if (pid == 0)
		child(c, tasks);
	DO(pid);
	return pid;
}

static int wait_for(int pid)
{
	int status;
	DO(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *rootfs, char **argv)
{
	const struct container c = {.rootfs = rootfs, .argv = argv, .fifo = -1, .ready = -1};
	int code = wait_for(spawn(&c));
	remove_cgroup();
	return code;
}

static int create(const char *rootfs, const char *fifo, char **argv)
{
	struct container c = {.rootfs = rootfs, .argv = argv};
	int ready[2];
	char byte;

	DO(mkfifo(fifo, 0622));
	DO(c.fifo = open(fifo, O_PATH | O_CLOEXEC));
	DO(pipe2(ready, O_CLOEXEC));
	c.ready = ready[1];
	spawn(&c);
	close(ready[1]);
	return read(ready[0], &byte, 1) == 1 ? 0 : 125;
}

static int start(const char *fifo)
{
	int gate;
	char byte;
	DO(gate = open(fifo, O_RDONLY | O_CLOEXEC));
	DO(read(gate, &byte, 1));
	return 0;
}

static int delete(const char *fifo)
{
	remove_cgroup();
	DO(unlink(fifo));
	return 0;
}

static int exec(int pid, char **argv)
{
	const int namespaces = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS;
	int pidfd, dir = -1, tasks[HIERARCHIES], process;

	DO(pidfd = (int)syscall(SYS_pidfd_open, pid, 0));
	if (v2)
		DO(dir = open(cgroup_path(0, ""), O_PATH | O_DIRECTORY | O_CLOEXEC));
	else
		open_tasks(tasks);
	/* The cgroup namespace is joined by the child: joined here it would hide the target cgroup's ancestor from clone3. */
	DO(setns(pidfd, namespaces));
	process = clone3(0, dir);
	if (process == 0) {
		if (v2)
			DO(setns(pidfd, CLONE_NEWCGROUP));
		else
			join_v1(tasks);
		DO(setsid());
		confine();
		execute(argv);
	}
	DO(process);
	return wait_for(process);
}

static _Noreturn void usage(void)
{
	dprintf(2, "floor: see the head of floor.c for its arguments\n");
	_exit(2);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		usage();
	const char *verb = argv[1];
	if (!strcmp(verb, "start"))
		return start(argv[2]);
	if (argc < 5)
		usage();
	v2 = !strcmp(argv[2], "v2");
	cgroup = argv[3];
	umask(0);
	if (!strcmp(verb, "delete"))
		return delete(argv[4]);
	if (!strcmp(verb, "run") && argc > 5)
		return run(argv[4], argv + 5);
	if (!strcmp(verb, "create") && argc > 6)
		return create(argv[4], argv[5], argv + 6);
	if (!strcmp(verb, "exec") && argc > 5)
		return exec(atoi(argv[4]), argv + 5);
	usage();
}
