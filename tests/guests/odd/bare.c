/*
 * A guest that is this one program: no shell, no directory but those that the kernel itself makes.
 *
 * As PID 1 it says on the console that it is up, and collects orphans. Started otherwise it does what its arguments say:
 *
 *     bare echo WORD…      writes the words
 *     bare exit NUMBER     ends with this code
 *     bare cat             copies its input to its output
 *     bare sleep           until it is killed
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int as_init(void)
{
	puts("bare guest: up");
	fflush(stdout);
	for (;;) {
		if (wait(NULL) < 0)
			pause();
	}
}

static int copy(void)
{
	char buffer[4096];
	ssize_t count;

	while ((count = read(STDIN_FILENO, buffer, sizeof(buffer))) > 0) {
		if (write(STDOUT_FILENO, buffer, count) != count)
			return 1;
	}
	return count < 0;
}

int main(int argc, char **argv)
{
	const char *act = argc > 1 ? argv[1] : "";

	if (getpid() == 1)
		return as_init();
	if (!strcmp(act, "echo")) {
		for (int i = 2; i < argc; i++)
			printf(i > 2 ? " %s" : "%s", argv[i]);
		putchar('\n');
		return 0;
	}
	if (!strcmp(act, "exit") && argc > 2)
		return atoi(argv[2]);
	if (!strcmp(act, "cat"))
		return copy();
	if (!strcmp(act, "sleep"))
		return pause();
	fprintf(stderr, "bare: unknown act `%s`\n", act);
	return 2;
}
