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
  /* Flags across calls: kept by the callee, made by it, read by it; through a tail call, and from a deeper one. */
  ".globl kept, made, taken_in, deep\n"
  "clear: movq $0,-16(%rsp)\n lea 1(%rax),%rax\n ret\n"
  "kept: mov %rdi,%rax\n cmp $3,%rdi\n call clear\n ja 5f\n jz 6f\n ret\n"
  "5: neg %rax\n ret\n"
  "6: not %rax\n ret\n"
  "odd: test $1,%dil\n stc\n jnz 7f\n clc\n"
  "7: ret\n"
  "made: call odd\n setc %al\n call odd\n movzbl %al,%eax\n adc $10,%eax\n ret\n"
  "sum: adc $100,%eax\n jmp odd\n"
  "taken_in: mov %edi,%eax\n cmp $4,%edi\n call sum\n sbb $0,%eax\n ret\n"
  "deeper: call clear\n nop\n ret\n"
  "deep: mov %rdi,%rax\n shr $1,%rdi\n call deeper\n rcl $1,%rax\n ret\n"
);
long kept(long), deep(long);
int made(int), taken_in(int);
int skipped(int), taken(int), entered(long);
long first(long), second(long);

int main(void) {
  for (int i = -3; i < 4; i++) printf("%d %x %ld %ld\n", skipped(i), taken(i), first(i), second(i));
  for (int i = 0; i < 5; i++) printf("%d\n", entered(i));
  for (int i = 0; i < 7; i++) printf("%ld %d %d %ld\n", kept(i), made(i), taken_in(i), deep(i));
  return 0;
}
