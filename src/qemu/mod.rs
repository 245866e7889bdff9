//! QEMU: command line, process, QMP, kernel images.
