//! Named cases of what emulators get wrong: flags of odd shifts, partial registers, carry chains, changing
//! string directions, x87 stack faults, denormals, NaNs. Each runs on the host CPU, in the interpreter and
//! as translated code, in many states; the masks leave out what the SDM calls undefined.

use std::arch::global_asm;
use vkernel_abi::state::{CpuState, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use vkernel_difftest::area::{SCRATCH, SCRATCH_LEN, TEXT};
use vkernel_difftest::batch::{Batch, Layout, bench};
use vkernel_difftest::rng::Rng;
use vkernel_difftest::snapshot::Mask;

const ALL: u64 = 0xcd5;
const CF: u64 = 1;
const PF: u64 = 4;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const OF: u64 = 0x800;

/// A program's bytes, between two symbols.
macro_rules! cases {
    ($($name:ident, $flags:expr, $code:literal;)*) => {
        $(
            global_asm!(concat!(
                ".pushsection .rodata.torture\n.globl torture_", stringify!($name), ", torture_", stringify!($name), "_end\n",
                "torture_", stringify!($name), ":\n", $code, "\ntorture_", stringify!($name), "_end:\n.byte 0\n.popsection"
            ));
            #[test]
            fn $name() {
                unsafe extern "C" {
                    #[link_name = concat!("torture_", stringify!($name))]
                    static START: u8;
                    #[link_name = concat!("torture_", stringify!($name), "_end")]
                    static END: u8;
                }
                let (start, end) = (&raw const START, &raw const END);
                // SAFETY: both symbols delimit the bytes assembled above.
                let code = unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) };
                check(stringify!($name), code, $flags);
            }
        )*
    };
}

const MIDDLE: u64 = SCRATCH + SCRATCH_LEN as u64 / 2;
const STATES: usize = 400;

fn states() -> Vec<(CpuState, Vec<u8>)> {
    let mut rng = Rng::new(0x5eed);
    let boundary = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x100,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 63,
        u64::MAX,
    ];
    (0..STATES)
        .map(|n| {
            let mut s = CpuState::new();
            for r in [RAX, RBX, RDX, 8, 9, 10, 11] {
                s.gpr[r] = if rng.one_in(2) { rng.pick(&boundary) } else { rng.next() };
            }
            s.gpr[RCX] = if n < 140 { n as u64 % 70 } else { rng.next() };
            (s.gpr[RSI], s.gpr[RDI]) = (MIDDLE + rng.below(64), MIDDLE + 64 + rng.below(64));
            (s.gpr[RSP], s.gpr[RBP]) = (MIDDLE + 1024, MIDDLE + 512);
            s.set_rflags(rng.next() & 0x8d5);
            s.xmm.iter_mut().for_each(|x| *x = rng.lanes());
            s.mxcsr = 0x1f80 | rng.pick(&[0, 0x8000, 0x40, 0x8040]);
            let mut memory = vec![0u8; SCRATCH_LEN];
            memory.iter_mut().for_each(|b| *b = rng.byte() & 3);
            for (k, chunk) in memory[SCRATCH_LEN / 2 + 512..][..128].chunks_exact_mut(8).enumerate() {
                chunk.copy_from_slice(&rng.float(k < 8 || k % 2 == 0).to_le_bytes());
            }
            (s, memory)
        })
        .collect()
}

fn check(name: &str, code: &[u8], flags: u64) {
    let mut bench = bench();
    let mut layout = Layout::new();
    let pc = layout.next();
    let mut code = code.to_vec();
    code.push(0xe9);
    let next = pc + code.len() as u64 + 4;
    code.extend((TEXT.wrapping_sub(next) as u32).to_le_bytes());
    layout.add(&code);
    let mut batch = Batch::new(&mut bench, layout);
    for (n, (state, memory)) in states().into_iter().enumerate() {
        let native = batch.native(pc, &state, &memory);
        let interpreted =
            batch.interpreted(pc, &state, &memory).diff(&native, Mask { flags, mxcsr: 0xffff, after_signal: true });
        assert!(interpreted.is_empty(), "{name}, state {n}, interpreter != native: {interpreted:#?}");
        let (translated, _) = batch.lifted(pc, &state, &memory);
        // DE is not kept (docs/quirks.md).
        let translated = translated.diff(&native, Mask { flags, mxcsr: 0xfffd, after_signal: false });
        assert!(translated.is_empty(), "{name}, state {n}, translated != native: {translated:#?}");
    }
}

cases! {
    string_comparisons_up_to_zeros, ALL, "movdqu xmm1, [rsi]; movdqu xmm2, [rdi]; .set torture_n, 0
        .rept 128
        .byte 0x66, 0x0f, 0x3a, 0x63, 0xca, torture_n # pcmpistri xmm1, xmm2, n
        setc bl; setz bh; sets dl; seto dh; setp al; rol r8, 7; xor r8, rcx; rol r9, 5; xor r9, rbx; rol r9, 5; xor r9, rdx; xor r9b, al
        .byte 0x66, 0x0f, 0x3a, 0x62, 0xca, torture_n # pcmpistrm xmm1, xmm2, n
        paddb xmm3, xmm0; pshufd xmm3, xmm3, 0x39; psrldq xmm1, 1
        test cl, cl; jnz 1f; movdqu xmm1, [rsi + 5]; psrldq xmm2, 1
        1: .set torture_n, torture_n + 1
        .endr";
    string_comparisons_of_lengths, ALL, "movdqu xmm1, [rsi]; movdqu xmm2, [rdi]; .set torture_n, 0
        .rept 128
        ror r10, 3; ror r11, 5; mov rax, r10; mov rdx, r11; and eax, 31; and edx, 31; sub rax, 8; sub rdx, 8
        .byte 0x66, 0x0f, 0x3a, 0x61, 0xca, torture_n # pcmpestri xmm1, xmm2, n
        setc bl; setz bh; seto cl; xor r9, rbx; rol r9, 5; lea r8, [r8 + 8 * rcx]; ror r8, 11; sets bl; xor r9b, bl
        .byte 0x66, 0x48, 0x0f, 0x3a, 0x60, 0xca, torture_n # pcmpestrm xmm1, xmm2, n by 64-bit lengths
        paddb xmm3, xmm0; pshufd xmm3, xmm3, 0x39; psrldq xmm2, 1
        test r8b, 7; jnz 1f; movdqu xmm2, [rdi + 3]; movdqu xmm1, [rsi + rcx]
        1: .set torture_n, torture_n + 1
        .endr";
    scans_and_comparisons, ALL, "and ecx, 63; mov r8, rdi; repne scasb; seto bl; setc bh; mov ecx, 40; mov rdi, r8; repe scasb; lahf; mov dh, ah; mov ecx, 50; mov rsi, r8; lea rdi, [r8 + 4]; repe cmpsb; lahf; mov dl, ah; mov r9, rcx; mov ecx, 21; repne cmpsw; mov r10, rcx; lahf; mov ecx, 9; xor eax, eax; repne scasd; mov r11, rcx; mov ecx, 7; lea rdi, [r8 + 8]; mov rsi, rdi; repe cmpsq; stc; mov ecx, 0; repne scasb; adc r10, rcx; repe cmpsd";
    scans_stay_in_their_page, ALL, "and ebx, 31; lea r8, [rbp + rbx + 1486]; mov byte ptr [rbp + 1535], 0xfe; mov rdi, r8; mov al, 0xfe; mov rcx, -1; repne scasb; mov r9, rcx; lahf; mov rdi, r8; mov rcx, r9; not rcx; mov al, 1; rep stosb; lea rdi, [rbp + 1400]; mov ecx, 60; rep stosb; lea rdi, [rbp + 1400]; mov rsi, r8; mov byte ptr [rbp + 1535], 0; mov rcx, -1; repe cmpsb; mov r10, rcx; mov r11, rdi; lea rdi, [rbp + 1400]; mov rcx, -1; repe scasb";
    register_pairs_compared_and_exchanged, ALL, "mov r8, rcx; and rsi, -16; mov rax, [rsi]; mov rdx, [rsi + 8]; test r8b, 1; jz 1f; not rdx; 1: mov rbx, r9; mov rcx, r10; lock cmpxchg16b [rsi]; setz r11b; adc r11, 0; mov eax, [rsi + 16]; mov edx, [rsi + 20]; test r8b, 2; jz 2f; inc eax; 2: cmpxchg8b [rsi + 16]; lahf";
    rounding_changes_between_equal_operations, ALL, "movsd xmm4, [rbp]; movsd xmm5, [rbp + 8]; movapd xmm6, xmm4; divsd xmm6, xmm5; stmxcsr [rsp]; and dword ptr [rsp], -3; mov eax, [rsp]; or eax, 0x6000; mov [rsp + 4], eax; ldmxcsr [rsp + 4]; movapd xmm7, xmm4; divsd xmm7, xmm5; ldmxcsr [rsp]; movapd xmm8, xmm4; divsd xmm8, xmm5; stmxcsr [rsp + 8]; and dword ptr [rsp + 8], -3; add eax, eax";
    trailing_and_leading_zeros, CF | ZF, "tzcnt rax, rbx; setc r8b; setz r9b; lzcnt edx, ecx; setc r10b; setz r11b; tzcnt bx, cx; lzcnt cx, dx; xor esi, esi; tzcnt rdi, rsi; setc r8b; lzcnt esi, esi";
    waiting_raises_what_is_unmasked, ALL, "fld1; fldz; fdivp; test al, 1; fnstcw [rsp]; jz 1f; and word ptr [rsp], 0xfffb; 1: fldcw [rsp]; fwait; mov r8d, 5; add eax, eax";
    two_carry_chains, ALL, "adcx rax, rbx; adox rdx, r8; adcx r9d, eax; adox r10d, edx; adc r11, 0; seto r11b";
    shifts_by_zero_keep_every_flag, ALL, "mov ecx, 0; shl eax, cl; shr bx, cl; sar dl, cl; shl r8, cl; rol r9d, cl; ror r10b, cl; rcl r11w, cl; rcr ah, cl";
    shifts_by_the_width_are_by_zero, ALL, "mov ecx, 32; shl eax, cl; shr ebx, cl; sar edx, cl; mov ecx, 64; shl r8, cl; sar r9, cl; shld r10d, eax, cl; shrd r11, rax, cl";
    short_shifts_beyond_the_width, SF | ZF | PF, "and ecx, 31; or ecx, 16; sar al, cl; shr bx, cl; shl dl, cl; add dl, 0; shl r8w, cl; sar bh, cl; or bh, bh";
    shifts_by_a_count, SF | ZF | PF, "shl eax, cl; sar rbx, cl; shr edx, cl; shl r8b, cl; sar r9w, cl; test r9w, r9w";
    shifts_by_one, ALL & !AF, "shl al, 1; setc r8b; seto r9b; sar bx, 1; seto r10b; shr edx, 1; seto r11b; shl rax, 1";
    double_shifts, SF | ZF | PF | CF, "shld rax, rbx, cl; setc r8b; shrd ebx, edx, cl; sets r9b; shld edx, eax, 31; shrd rax, rdx, 63; test rax, rax";
    rotates_through_carry_by_a_count, CF, "rcl al, cl; rcr bx, cl; rcl edx, cl; rcr r8, cl; rcl r9b, 9; rcr r10w, 17; rcl r11d, 31";
    rotates_through_carry_by_one, ALL, "rcl al, 1; seto r8b; rcr ah, 1; rcl bx, 1; rcr edx, 1; seto r9b; rcl r10, 1; rcr r11, 1";
    short_rotates_by_multiples, CF | SF | ZF | PF | AF, "rol al, 8; setc r8b; ror bx, 16; setc r9b; rol dl, 24; ror ah, cl; rol r10w, cl";
    carry_chain_of_all_widths, ALL, "add al, bl; adc ah, bh; adc bx, dx; adc edx, eax; adc r8, r9; sbb r10b, r11b; sbb r9w, bx; sbb ebx, 0x7fffffff; sbb rax, -1";
    carry_survives_increments, ALL, "add rax, rbx; inc r8; dec r9; lea r10, [r10 + 1]; adc rdx, 0; dec al; inc bh; not r11; sbb r11, r11";
    borrow_with_equal_operands, ALL, "stc; sbb eax, eax; setc r8b; clc; sbb rbx, rbx; cmc; adc bl, 0xff; sbb dl, dl";
    adjust_and_parity, ALL, "add al, bl; lahf; mov cl, ah; sub dl, bl; lahf; mov ch, ah; cmp bx, dx; lahf; mov dh, ah; add eax, 15; setp r11b; neg bl";
    flags_through_ah, ALL, "mov ah, al; sahf; adc bl, bh; lahf; xchg ah, dl; sahf; sbb r8d, r9d";
    flags_through_the_stack, ALL, "pushfq; or word ptr [rsp], 0x8d5; and word ptr [rsp], 0xfbff; popfq; adc eax, ebx; pushfq; pop r8; and r8, 0x8d5; push r8; popfq; sbb edx, eax";
    scans_of_zero_keep_the_register, ZF, "mov r8, rax; xor r9d, r9d; bsf r8, r9; setz r10b; bsr eax, r9d; mov r11, rbx; bsf r11w, r9w; bsf rdx, rbx; bsr rbx, rcx";
    zero_counts, CF | ZF, "and ecx, 0xff; popcnt rdx, rcx; setz r8b; popcnt ax, bx; test al, al; clc";
    partial_registers, ALL, "mov al, bh; mov ah, dl; add ax, bx; movsx ecx, ah; movzx edx, al; mov bl, 0x80; sub bh, bl; xchg al, ah; add r8b, al; adc r9w, ax; cbw; cwde";
    exchanges_with_themselves, ALL, "xadd al, al; xadd ah, al; xadd rbx, rbx; cmpxchg bl, bh; cmpxchg edx, r8d; xchg eax, eax; xchg r9d, r9d";
    multiplications, CF | OF, "imul bl; seto r8b; mul bx; setc r9b; imul edx, eax, 0x7fffffff; seto r10b; mul r11; imul rax, rbx";
    negations, ALL, "neg al; seto r8b; setc r9b; neg bx; not edx; neg r10; adc r11, 0";
    bit_strings_backwards, CF, "movsx rcx, cl; bts [rbp], ecx; setc al; btr [rbp], rcx; setc bl; btc dword ptr [rbp], 35; bt rdx, 200; adc r8d, 0; bt word ptr [rbp], cx";
    division_faults, 0, "div bl; mov edx, 0; div ecx; cqo; idiv rbx";
    strings_change_direction, ALL, "mov ecx, 9; cld; rep movsb; std; mov ecx, 5; rep movsw; lodsb; stosd; cld; mov ecx, 3; rep stosq; lodsw; std; mov ecx, 7; rep movsb; cld; xor eax, ebx";
    comparisons_of_strings_both_ways, ALL, "mov ecx, 20; repe cmpsb; setz r8b; mov r9, rcx; std; mov ecx, 30; repne cmpsw; mov r10, rcx; mov al, 2; mov ecx, 40; repne scasb; mov r11, rcx; mov ecx, 4; repe scasd; cld";
    repetitions_of_nothing, ALL, "mov ecx, 0; repe cmpsb; repne scasq; rep movsd; rep stosb; rep lodsw";
    overlapping_copies, ALL, "lea rdi, [rsi + 3]; mov ecx, 40; rep movsb; lea rsi, [rdi - 1]; std; mov ecx, 20; rep movsb; cld; add eax, ebx";
    x87_full_stack, ALL, "fninit; fld1; fldz; fldpi; fld1; fld1; fldl2e; fld1; fldz; fld1; fnstsw ax; fld qword ptr [rbp]; fild dword ptr [rbp]; fnstsw ax";
    x87_empty_stack, ALL, "fninit; fadd st, st(1); fstp st(0); fxch st(2); fabs; fstp tbyte ptr [rbp + 200]; fstp tbyte ptr [rbp + 240]; fistp dword ptr [rbp + 280]; fucomi st, st(3); fnstsw ax";
    x87_wrap_around, ALL, "fninit; fincstp; fld qword ptr [rbp]; fdecstp; fld1; ffree st(1); fst st(5); fstp st(3); fxch st(7); fnstsw ax";
    x87_denormals_and_nans, ALL, "fninit; fld qword ptr [rbp]; fld qword ptr [rbp + 8]; fadd st, st(1); fmul qword ptr [rbp + 16]; fld dword ptr [rbp + 64]; fdivp st(1), st; fst dword ptr [rbp + 200]; fstp qword ptr [rbp + 208]; fchs; fnstsw ax";
    x87_comparisons, ALL, "fninit; fld qword ptr [rbp]; fld qword ptr [rbp + 8]; fcomi st, st(1); setb r8b; setp r9b; fucomip st, st(1); sete r10b; ftst; fnstsw ax; fxam; mov r11, rax; fnstsw ax";
    x87_rounding_to_integers, ALL, "fninit; fnstcw [rbp + 200]; or word ptr [rbp + 200], 0xc00; fld qword ptr [rbp]; fist word ptr [rbp + 208]; fldcw [rbp + 200]; fist dword ptr [rbp + 212]; fistp qword ptr [rbp + 216]; and word ptr [rbp + 200], 0xf3ff; fldcw [rbp + 200]; fld tbyte ptr [rbp + 16]; fisttp qword ptr [rbp + 224]; fnstsw ax; test eax, eax; cld";
    mmx_over_x87, ALL, "fninit; fld1; fldz; movq mm0, [rbp]; paddb mm0, mm1; movq mm7, rax; pshufb mm7, mm0; emms; fld1; fnstsw ax";
    sse_denormals, ALL, "movsd xmm0, [rbp]; addsd xmm0, [rbp + 8]; mulsd xmm1, xmm0; movss xmm2, [rbp + 72]; divss xmm2, xmm3; sqrtss xmm4, xmm2; cvtss2sd xmm5, xmm2; cvtsd2ss xmm6, xmm0; subpd xmm7, xmm5";
    sse_nan_payloads, ALL, "movsd xmm0, [rbp]; movsd xmm1, [rbp + 16]; addsd xmm0, xmm1; mulsd xmm1, [rbp]; minsd xmm2, xmm0; maxsd xmm0, xmm2; addps xmm3, xmm4; mulps xmm4, xmm3; minps xmm5, xmm6; maxps xmm6, xmm5; sqrtpd xmm7, xmm8";
    byte_shuffles_of_any_index, ALL, "pshufb xmm0, xmm1; pshufb xmm2, xmm2; pmaddubsw xmm3, xmm4; pmulhrsw xmm5, xmm5; palignr xmm6, xmm7, 17; psignb xmm8, xmm9; phsubsw xmm10, xmm11; blendvps xmm12, xmm13, xmm0";
}
