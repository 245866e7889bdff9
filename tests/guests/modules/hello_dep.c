// SPDX-License-Identifier: GPL-2.0
/* What `hello` needs: loaded first, and unloaded last. */

#include <linux/module.h>

int hello_dep_greet(const char *name);

int hello_dep_greet(const char *name)
{
	pr_info("hello_dep: hello, %s\n", name);
	return 0;
}
EXPORT_SYMBOL_GPL(hello_dep_greet);

MODULE_DESCRIPTION("greets on behalf of another module");
MODULE_LICENSE("GPL");
