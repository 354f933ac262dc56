/* Code that no compiler writes: overlapping instructions, tails that functions share, a computed call. */
#include <stdio.h>

__asm__(
  ".text\n"
  ".globl skipped, taken, first, second, entered\n"
  /* The same bytes as `add $7,%eax; ret`, and as the operand of a MOV. */
  "skipped: mov %edi,%eax\n jmp 1f\n"
  "taken: .byte 0xb8\n"
  "1: .byte 0x83,0xc0,0x07,0xc3\n ret\n"
  /* Two functions with one end. */
  "first: lea 1(%rdi),%rax\n jmp 2f\n"
  "second: lea 2(%rdi),%rax\n"
  "2: imul %rdi,%rax\n test $1,%al\n jz 3f\n neg %rax\n"
  "3: ret\n"
  /* Jumps to an address that it computes from its argument: 4 bytes a step. */
  "entered: lea 4f(%rip),%rdx\n lea (%rdx,%rdi,4),%rdx\n xor %eax,%eax\n jmp *%rdx\n"
  "4: add $1,%eax\n nop\n add $2,%eax\n nop\n add $4,%eax\n nop\n add $8,%eax\n nop\n ret\n"
);
int skipped(int), taken(int), entered(long);
long first(long), second(long);

int main(void) {
  for (int i = -3; i < 4; i++) printf("%d %x %ld %ld\n", skipped(i), taken(i), first(i), second(i));
  for (int i = 0; i < 5; i++) printf("%d\n", entered(i));
  return 0;
}
