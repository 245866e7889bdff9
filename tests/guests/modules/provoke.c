// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the kernel report what a test wants to see reported: real reports of its own machinery, nothing printed here.
 *
 *     echo WORD [NUMBER] > /proc/provoke       or the module parameter `now=WORD`, done when the module is loaded
 *
 * `hungtask` works only before an oops: the kernel gives up looking after one. `kfence` takes kfence.sample_interval=100
 * on the command line. The machinery's own limits are the test's business: kernel.watchdog_thresh for `softlockup`,
 * kernel.hung_task_timeout_secs for `hungtask`, rcupdate's rcu_cpu_stall_timeout for `rcustall`.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#ifdef CONFIG_KFENCE
#include <linux/kfence.h>
#endif

/* How long an allocation that KFENCE guards is waited for: it takes one every 100 ms. */
#define KFENCE_WAIT (30 * HZ)

static noinline int provoke_warn(unsigned int number)
{
	WARN(1, "provoked warning %u\n", number);
	return 0;
}

static noinline int provoke_warn_plain(unsigned int number)
{
	WARN_ON(number + 1);
	return 0;
}

static noinline int provoke_bug(unsigned int number)
{
	BUG_ON(number + 1);
	return 0;
}

/* The address is one the compiler can't know, so that it neither warns nor traps by itself. */
static noinline int provoke_oops(unsigned int number)
{
	volatile int *nowhere = (volatile int *)(unsigned long)(number & 0xff);

	OPTIMIZER_HIDE_VAR(nowhere);
	return *nowhere;
}

static noinline int provoke_gpf(unsigned int number)
{
	volatile int *nowhere = (volatile int *)(0x1234567800000000UL | number);

	OPTIMIZER_HIDE_VAR(nowhere);
	return *nowhere;
}

static noinline int provoke_divide(unsigned int number)
{
	unsigned int zero = 0;

	OPTIMIZER_HIDE_VAR(zero);
	return number / zero;
}

static noinline int provoke_panic(unsigned int number)
{
	panic("provoked panic %u", number);
}

static noinline int provoke_list(unsigned int number)
{
	LIST_HEAD(head);
	struct list_head entry;

	list_add(&entry, &head);
	entry.next = (struct list_head *)&entry;
	list_del(&entry);
	return 0;
}

static noinline int provoke_atomic(unsigned int number)
{
	local_bh_disable();
	schedule();
	/* Its report sets the count back: to enable once more would spoil it, and may lock the CPU up. */
	if (softirq_count())
		local_bh_enable();
	return 0;
}

/* Nothing else runs on this CPU for so many seconds. */
static noinline int provoke_softlockup(unsigned int seconds)
{
	unsigned long end = jiffies + seconds * HZ;

	preempt_disable();
	while (time_before(jiffies, end))
		cpu_relax();
	preempt_enable();
	return 0;
}

static noinline int provoke_rcustall(unsigned int seconds)
{
	int result;

	rcu_read_lock();
	result = provoke_softlockup(seconds);
	rcu_read_unlock();
	return result;
}

static noinline int provoke_hungtask(unsigned int seconds)
{
	DECLARE_COMPLETION_ONSTACK(never);

	wait_for_completion_timeout(&never, seconds * HZ);
	return 0;
}

#ifdef CONFIG_KFENCE
static noinline int provoke_kfence(unsigned int number)
{
	unsigned long end = jiffies + KFENCE_WAIT;

	while (time_before(jiffies, end)) {
		volatile char *memory = kmalloc(32, GFP_KERNEL);

		if (!memory)
			return -ENOMEM;
		if (is_kfence_address((void *)memory)) {
			kfree((void *)memory);
			return memory[number & 31];
		}
		kfree((void *)memory);
		cond_resched();
	}
	return -ETIME;
}
#endif

static int thread_oops(void *number)
{
	return provoke_oops((unsigned long)number);
}

/* The oops happens in a kernel thread: no process of the guest ends with it. */
static int provoke_thread(unsigned int number)
{
	return PTR_ERR_OR_ZERO(kthread_run(thread_oops, (void *)(unsigned long)number, "provoke"));
}

static const struct {
	const char *word;
	int (*act)(unsigned int number);
} acts[] = {
	{ "warn", provoke_warn },
	{ "warn_plain", provoke_warn_plain },
	{ "bug", provoke_bug },
	{ "oops", provoke_oops },
	{ "oops_thread", provoke_thread },
	{ "gpf", provoke_gpf },
	{ "divide", provoke_divide },
	{ "panic", provoke_panic },
	{ "list", provoke_list },
	{ "atomic", provoke_atomic },
	{ "softlockup", provoke_softlockup },
	{ "rcustall", provoke_rcustall },
	{ "hungtask", provoke_hungtask },
#ifdef CONFIG_KFENCE
	{ "kfence", provoke_kfence },
#endif
};

static int provoke(const char *text)
{
	char word[32];
	unsigned int number = 0;
	int i;

	if (sscanf(text, "%31s %u", word, &number) < 1)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(acts); i++) {
		if (!strcmp(word, acts[i].word))
			return min(acts[i].act(number), 0);
	}
	return -EINVAL;
}

static ssize_t provoke_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	char text[64];
	int error;

	if (size >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	text[size] = '\0';
	error = provoke(text);
	return error ? error : size;
}

static const struct proc_ops provoke_ops = {
	.proc_write = provoke_write,
};

static char *now;
module_param(now, charp, 0444);
MODULE_PARM_DESC(now, "what to do when the module is loaded");

static int __init provoke_init(void)
{
	if (!proc_create("provoke", 0200, NULL, &provoke_ops))
		return -ENOMEM;
	if (now && provoke(now)) {
		remove_proc_entry("provoke", NULL);
		return -EINVAL;
	}
	return 0;
}

static void __exit provoke_exit(void)
{
	remove_proc_entry("provoke", NULL);
}

module_init(provoke_init);
module_exit(provoke_exit);
MODULE_DESCRIPTION("makes the kernel report warnings, oopses, panics, stalls");
MODULE_LICENSE("GPL");
