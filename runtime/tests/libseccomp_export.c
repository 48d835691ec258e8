/*
 * The oracle of seccomp_libseccomp.rs: says what libseccomp makes of a profile. Commands on standard input, one a line:
 *   names ARCH NAME...            prints the number of each name on ARCH
 *   filter ACTION OPTIMIZE ARCH.. starts a filter for these architectures, none of them native unless named
 *   rule ACTION NAME [INDEX OPERATOR A B]...
 *   end                           prints the filter: count, then "code jt jf k" in hexadecimal; or "error NUMBER"
 */
#include <arpa/inet.h>
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char line[1 << 20];

static unsigned long long number(void)
{
	char *word = strtok(NULL, " \n");
	return word ? strtoull(word, NULL, 0) : 0;
}

static int is_verdict(uint32_t k)
{
	switch (k & 0xffff0000) {
	case SCMP_ACT_KILL_THREAD:
	case SCMP_ACT_KILL_PROCESS:
	case SCMP_ACT_TRAP:
	case SCMP_ACT_LOG:
	case SCMP_ACT_NOTIFY:
	case SCMP_ACT_ALLOW:
		return (k & 0xffff) == 0;
	case SCMP_ACT_ERRNO(0):
	case SCMP_ACT_TRACE(0):
		return (k & 0xffff) < 0x100;
	}
	return 0;
}

static void print_filter(scmp_filter_ctx ctx, int big)
{
	struct { uint16_t code; uint8_t jt, jf; uint32_t k; } in;
	FILE *file = tmpfile();
	long bytes;

	if (!file || seccomp_export_bpf(ctx, fileno(file)) < 0) {
		printf("error %d\n", errno);
		if (file)
			fclose(file);
		return;
	}
	fseek(file, 0, SEEK_END);
	bytes = ftell(file);
	rewind(file);
	printf("%ld", bytes / (long)sizeof(in));
	while (fread(&in, sizeof(in), 1, file) == 1) {
		if (big) {
			in.code = ntohs(in.code);
			/* it leaves the verdicts of rules in the host's order, not those of defaults */
			if (in.code != 6 || !is_verdict(in.k))
				in.k = ntohl(in.k);
		}
		printf(" %x %x %x %x", in.code, in.jt, in.jf, in.k);
	}
	printf("\n");
	fclose(file);
}

int main(void)
{
	scmp_filter_ctx ctx = NULL;
	int failed = 0, big = 0;

	seccomp_api_set(6);
	while (fgets(line, sizeof(line), stdin)) {
		char *word = strtok(line, " \n");

		if (!word)
			continue;
		if (!strcmp(word, "names")) {
			uint32_t arch = seccomp_arch_resolve_name(strtok(NULL, " \n"));
			while ((word = strtok(NULL, " \n")))
				printf("%d ", arch ? seccomp_syscall_resolve_name_arch(arch, word) : -1);
			printf("\n");
		} else if (!strcmp(word, "filter")) {
			uint32_t action = number();
			int optimize = number();

			ctx = seccomp_init(action);
			failed = seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
			big = 0;
			while ((word = strtok(NULL, " \n"))) {
				uint32_t arch = seccomp_arch_resolve_name(word);
				int rc = seccomp_arch_add(ctx, arch);
				if (rc < 0 && !failed)
					failed = rc;
				if (!(arch & 0x40000000))
					big = 1;
			}
			if (optimize)
				seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
		} else if (!strcmp(word, "rule")) {
			uint32_t action = number();
			int call = seccomp_syscall_resolve_name(strtok(NULL, " \n"));
			struct scmp_arg_cmp args[6];
			int count = 0, rc;

			while ((word = strtok(NULL, " \n")) && count < 6) {
				args[count].arg = strtoul(word, NULL, 0);
				args[count].op = number();
				args[count].datum_a = number();
				args[count].datum_b = number();
				count++;
			}
			if (call == __NR_SCMP_ERROR)
				continue;
			rc = seccomp_rule_add_array(ctx, action, call, count, args);
			if (rc < 0 && !failed)
				failed = rc;
		} else if (!strcmp(word, "end")) {
			if (failed)
				printf("error %d\n", -failed);
			else
				print_filter(ctx, big);
			seccomp_release(ctx);
		}
	}
	return 0;
}
