-- A root file system on a disk: without an initrd, and behind one that switches to it.

local directory, image = os.tmpname(), os.tmpname()
local made = os.execute(([[
PATH=$PATH:/usr/sbin:/sbin; set -e
rm -f %s; mkdir -p %s; cd %s
mkdir bin sbin proc sys dev etc tmp mnt
cp "$(command -v busybox)" bin/busybox
for name in sh mount cat echo ls sleep touch sync grep; do ln -s busybox bin/$name; done
printf '#!/bin/sh\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\nmount -t devtmpfs devtmpfs /dev 2>/dev/null\necho the root on the disk is up\nwhile :; do sleep 1000000; done\n' > sbin/init
chmod 755 sbin/init
echo on-disk > etc/root
truncate -s 32M %s
mke2fs -q -F -t ext4 -d . -E root_owner=0:0 %s
cd /; rm -r %s]]):format(directory, directory, directory, image, image, directory))
assert(made, "the image can't be made")

local function check(t, vm)
  t:assert_eq(vm:read_file("/etc/root"), "on-disk\n")
  t:assert_contains(vm:run("cat /proc/1/cmdline").stdout, "/sbin/init")
  vm:run("echo x > /tmp/written; sync"):assert_ok()
  t:assert_match(vm:disk("root"):device(), "^/dev/[vs]d?a$")
end

test("without an initrd", function(t)
  local vm = provium:vm("root", "no-initrd", {
    memory = "192M", kernel_cmdline_append = "root=/dev/vda rw", disks = {{template = image, id = "root"}},
  }):boot()
  check(t, vm)
  -- A clone goes on from its root, and writes to one of its own.
  vm:run("echo not synced > /tmp/before"):assert_ok()
  local clone = vm:clone("clone")
  t:assert_eq({clone:read_file("/etc/root"), clone:read_file("/tmp/before")}, {"on-disk\n", "not synced\n"})
  clone:run("echo clone > /etc/root; sync"):assert_ok()
  vm:run("echo 3 > /proc/sys/vm/drop_caches"):assert_ok()
  t:assert_eq(vm:read_file("/etc/root"), "on-disk\n")
  clone:run("echo 3 > /proc/sys/vm/drop_caches"):assert_ok()
  t:assert_eq(clone:read_file("/etc/root"), "clone\n")
  clone:shutdown()
  clone:boot()
  t:assert_eq({clone:read_file("/etc/root"), clone:read_file("/tmp/before")}, {"clone\n", "not synced\n"})
  vm:shutdown()
  vm:boot()
  t:assert_eq(vm:read_file("/tmp/written"), "x\n")
end)

test("on SCSI", function(t)
  local vm = provium:vm("scsi", "no-initrd", {memory = "192M", kernel_cmdline_append = "root=/dev/sda rw"})
  vm:attach_disk({image = image, id = "root", bus = "scsi"})
  check(t, vm:boot())
end)

test("behind an initrd", function(t)
  local script = "#!/bin/sh\nmount -t proc proc /proc\nmount -t devtmpfs devtmpfs /dev\n"
    .. "until mount -t ext4 /dev/vda /mnt; do sleep 0.1; done\n"
    .. "umount /proc\nexec switch_root /mnt /sbin/init\n"
  local vm = provium:vm("switch", "linux", {
    memory = "192M", files = {{path = "/init", content = script, mode = 493}}, disks = {{template = image, id = "root"}},
  }):boot()
  wait_until(function() return vm:exists("/etc/root") and vm:exists("/proc/1/cmdline") end, {timeout = "60s"})
  check(t, vm)
end)

test("a root that is not there", function(t)
  local vm = provium:vm("none", "no-initrd", {memory = "192M", kernel_cmdline_append = "root=/dev/vdb", disks = {{template = image}}})
  local err = t:assert_raises(function() vm:boot() end)
  t:assert_contains(err, "`root=/dev/vdb`: there is no such device")
  t:assert_contains(err, "`/dev/vda`")
  os.remove(image)
end)

test("disks of a profile come before others", function(t)
  local vm = provium:vm("profile", "with-disks", {memory = "192M", disks = {{scratch = "3M", id = "third"}}})
  t:assert_eq(vm:disk("second"):size(), 2 * 1024 * 1024)
  vm:boot()
  t:assert_eq({vm:disk("first"):device(), vm:disk("second"):device(), vm:disk("third"):device()}, {"/dev/vda", "/dev/sda", "/dev/vdb"})
end)
