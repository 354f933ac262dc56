/*
 * Two switches of one size whose tables' addresses are made together, before a loop, and kept in registers:
 * which table a jump reads is not told by the address that was made last. Compilers write this where an
 * inlined function with a switch is used twice in a loop; as assembly it does not depend on the compiler.
 */
#include <stdio.h>

/* What both switches call behind their cases. */
long weigh(long sum, long n) { return sum * 31 + n; }

/* For n from 0 to count − 1: sum = weigh(sum, first(n % 5)), then sum = weigh(sum, second(n % 5)). */
long two_switches(long count);

__asm__(
    ".text\n.globl two_switches\n.type two_switches, @function\ntwo_switches:\n"
    ".cfi_startproc\n"
    "push %rbx\n.cfi_adjust_cfa_offset 8\npush %rbp\n.cfi_adjust_cfa_offset 8\npush %r12\n.cfi_adjust_cfa_offset 8\n"
    "push %r13\n.cfi_adjust_cfa_offset 8\npush %r14\n.cfi_adjust_cfa_offset 8\n"
    "mov %rdi, %rbp\nxor %ebx, %ebx\nxor %r12d, %r12d\n"
    "lea second_table(%rip), %r13\nlea first_table(%rip), %r14\n"
    "1: cmp %rbp, %rbx\njge 9f\n"
    "mov %rbx, %rax\nxor %edx, %edx\nmov $5, %ecx\ndiv %rcx\nmov %rdx, %rax\n"
    "cmp $4, %al\nja 9f\nmovzbl %al, %eax\nmovslq (%r14,%rax,4), %rax\nadd %r14, %rax\njmp *%rax\n"
    "10: mov $1, %esi\njmp 2f\n11: mov $2, %esi\njmp 2f\n12: mov $3, %esi\njmp 2f\n13: mov $4, %esi\njmp 2f\n"
    "14: mov $5, %esi\n"
    "2: mov %r12, %rdi\ncall weigh@PLT\nmov %rax, %rdi\nmov %rbx, %rax\nxor %edx, %edx\nmov $5, %ecx\ndiv %rcx\n"
    "mov %rdx, %rax\nlea 1000(%rbx), %rsi\n"
    "cmp $4, %al\nja 9f\nmovzbl %al, %eax\nmovslq (%r13,%rax,4), %rax\nadd %r13, %rax\njmp *%rax\n"
    /* These cases read rdi and rsi as they are, where those of the first switch write both. */
    "20: add $10, %rsi\njmp 3f\n21: add $20, %rsi\njmp 3f\n22: add $30, %rsi\njmp 3f\n23: add $40, %rsi\njmp 3f\n"
    "24: add $50, %rsi\n"
    "3: call weigh@PLT\nmov %rax, %r12\ninc %rbx\njmp 1b\n"
    "9: mov %r12, %rax\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
    ".cfi_endproc\n.size two_switches, .-two_switches\n"
    ".section .rodata\n.balign 4\n"
    "first_table: .long 10b-first_table, 11b-first_table, 12b-first_table, 13b-first_table, 14b-first_table\n"
    "second_table: .long 20b-second_table, 21b-second_table, 22b-second_table, 23b-second_table, 24b-second_table\n"
    ".text\n");

int main(void) {
  for (long n = 0; n < 12; n++) printf("%ld: %ld\n", n, two_switches(n));
  printf("%ld\n", two_switches(1000));
  return 0;
}
