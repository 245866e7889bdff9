// SPDX-License-Identifier: GPL-2.0
/* A module that can be loaded and unloaded, with parameters and a dependency. */

#include <linux/module.h>

int hello_dep_greet(const char *name);

static char *name = "world";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "whom to greet");

static int fail;
module_param(fail, int, 0444);
MODULE_PARM_DESC(fail, "errno that loading fails with");

static int __init hello_init(void)
{
	if (fail)
		return -fail;
	return hello_dep_greet(name);
}

static void __exit hello_exit(void)
{
	pr_info("hello: bye, %s\n", name);
}

module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("greets when it is loaded");
MODULE_LICENSE("GPL");
