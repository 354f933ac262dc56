//! One instruction: the dispatch from mnemonic to its definition.

use crate::backend::{Backend, Flow};
use crate::flags::cond;
use crate::operand::{read, write_reg};
use crate::{bits, bmi, crypto, int, muldiv, shift, sse, sse_fp, sse3, sse4, sse42, stack, string, system};
use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind};
use vkernel_abi::wasm::Trap;

pub type Done<B> = Result<Flow<<B as Backend>::V>, <B as Backend>::Fault>;

/// Executes `i` on `b`.
///
/// Preconditions: `i` was decoded with `decode::OPTIONS`, its IP is the guest address.
/// Errors: a fault leaves every register unchanged (REP string instructions: as far as they got).
pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use Mnemonic as M;
    if i.is_invalid() {
        return Ok(Flow::Trap(Trap::Invalid));
    }
    if i.is_string_instruction() {
        return string::exec(b, i);
    }
    if i.condition_code() != ConditionCode::None {
        return conditional(b, i);
    }
    match i.mnemonic() {
        M::Mov => int::mov(b, i),
        M::Movzx => int::movzx(b, i),
        M::Movsx | M::Movsxd => int::movsx(b, i),
        M::Movnti => int::mov(b, i),
        M::Lea => int::lea(b, i),
        M::Xchg => int::xchg(b, i),
        M::Add | M::Sub | M::Adc | M::Sbb | M::And | M::Or | M::Xor => int::binary(b, i),
        M::Cmp => int::cmp(b, i),
        M::Test => int::test(b, i),
        M::Inc | M::Dec => int::inc_dec(b, i),
        M::Not | M::Neg => int::not_neg(b, i),
        M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo => int::extend_acc(b, i),
        M::Bswap => int::bswap(b, i),
        M::Xadd => int::xadd(b, i),
        M::Cmpxchg => int::cmpxchg(b, i),
        M::Stc | M::Clc | M::Cmc | M::Std | M::Cld | M::Lahf | M::Sahf => int::flag_op(b, i),
        M::Mul | M::Imul => muldiv::mul(b, i),
        M::Div | M::Idiv => muldiv::div(b, i),
        M::Shl | M::Sal | M::Shr | M::Sar => shift::shift(b, i),
        M::Rol | M::Ror => shift::rotate(b, i),
        M::Rcl | M::Rcr => shift::rotate_carry(b, i),
        M::Shld | M::Shrd => shift::double(b, i),
        M::Bt | M::Bts | M::Btr | M::Btc => bits::bt(b, i),
        M::Bsf | M::Bsr => bits::scan(b, i),
        M::Popcnt => bmi::popcnt(b, i),
        M::Lzcnt | M::Tzcnt => bmi::count_zeros(b, i),
        M::Movbe => bmi::movbe(b, i),
        M::Andn => bmi::andn(b, i),
        M::Blsi | M::Blsmsk | M::Blsr => bmi::lowest(b, i),
        M::Bextr | M::Bzhi => bmi::extract(b, i),
        M::Rorx | M::Sarx | M::Shlx | M::Shrx => bmi::shift(b, i),
        M::Mulx => bmi::mulx(b, i),
        M::Pdep | M::Pext => bmi::gather(b, i),
        M::Push => stack::push(b, i),
        M::Pop => stack::pop(b, i),
        M::Pushfq | M::Pushf => stack::pushf(b, i),
        M::Popfq | M::Popf => stack::popf(b, i),
        M::Leave => stack::leave(b, i),
        M::Enter if i.code() == iced_x86::Code::Enterq_imm16_imm8 => b.host_only(i),
        M::Call => stack::call(b, i),
        M::Ret => stack::ret(b, i),
        M::Jmp => match i.op0_kind() {
            OpKind::NearBranch64 => Ok(Flow::Jump(i.near_branch64())),
            OpKind::Register | OpKind::Memory if i.flow_control() == FlowControl::IndirectBranch => {
                Ok(Flow::JumpTo(read(b, i, 0)?))
            }
            _ => Ok(Flow::Unknown),
        },
        M::Jrcxz | M::Jecxz | M::Loop | M::Loope | M::Loopne => stack::loop_branch(b, i),
        M::Syscall => {
            let next = b.c(i.next_ip());
            b.set_reg(vkernel_abi::state::RCX, next);
            let flags = stack::rflags(b);
            b.set_reg(vkernel_abi::state::R11, flags);
            Ok(Flow::Syscall)
        }
        M::Nop
        | M::Endbr64
        | M::Endbr32
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetch
        | M::Rdsspd
        | M::Rdsspq
        | M::Reservednop
        | M::Clflush => Ok(Flow::Next),
        M::Pause | M::Mfence | M::Lfence | M::Sfence => {
            b.fence();
            Ok(Flow::Next)
        }
        M::Ud2 | M::Ud0 | M::Ud1 => Ok(Flow::Trap(Trap::Invalid)),
        M::Int3 => Ok(Flow::Trap(Trap::Breakpoint)),
        M::Int1 => Ok(Flow::Trap(Trap::Debug)),
        M::Hlt | M::In | M::Out | M::Cli | M::Sti | M::Int | M::Iretq | M::Iret => Ok(Flow::Trap(Trap::Protection)),
        M::Xlatb => int::xlat(b),
        M::Cpuid | M::Rdtsc | M::Cmpxchg8b | M::Cmpxchg16b | M::Ldmxcsr | M::Stmxcsr => system::exec(b, i),
        M::Crc32 => sse42::crc32(b, i),
        M::Adcx | M::Adox => bmi::add_carry(b, i),
        M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 | M::Maskmovdqu => b.host_only(i),
        M::Wait => b.host_only(i),
        _ if is_x87(i) || crate::mmx::is_mmx(i) => b.host_only(i),
        _ => {
            for group in [sse::exec, sse_fp::exec, sse3::exec, sse4::exec, sse42::exec, crypto::exec] {
                if let Some(flow) = group(b, i)? {
                    return Ok(flow);
                }
            }
            Ok(Flow::Unknown)
        }
    }
}

/// The x87 escape opcodes D8–DF.
pub fn is_x87(i: &Instruction) -> bool {
    let features = i.cpuid_features();
    features.iter().any(|f| {
        use iced_x86::CpuidFeature as F;
        matches!(f, F::FPU | F::FPU287 | F::FPU387)
    })
}

/// Jcc, SETcc, CMOVcc.
fn conditional<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let cc = i.condition_code();
    if i.is_jcc_short_or_near() {
        let cond = cond(b, cc);
        return Ok(Flow::Branch { cond, target: i.near_branch64() });
    }
    if i.op_count() == 1 {
        let v = cond(b, cc);
        crate::operand::write(b, i, 0, v)?;
        return Ok(Flow::Next);
    }
    // A CMOV reads its source whatever the condition; a 32-bit one clears the upper half even when
    // the condition is false.
    let source = read(b, i, 1)?;
    let old = read(b, i, 0)?;
    let cond = cond(b, cc);
    let v = b.select(cond, source, old);
    write_reg(b, i.op0_register(), v);
    Ok(Flow::Next)
}
