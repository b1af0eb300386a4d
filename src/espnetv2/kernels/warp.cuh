// What kernels for warps are written in, as PTX for compute capability 8.0 and above. Halves are
// bfloat16, or float16 where FLOAT16 is 1. No header is included, so that NVRTC needs none.

typedef unsigned int u32;
typedef unsigned short u16;
struct alignas(16) Chunk {  // 8 halves
    u32 part[4];
};

#define DEVICE __device__ __forceinline__

DEVICE int thread() { return threadIdx.x; }
DEVICE int block() { return blockIdx.x; }
DEVICE void barrier() { asm volatile("bar.sync 0;" ::: "memory"); }
DEVICE void meet() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }  // a warp's threads

DEVICE u32 shared() {  // where shared memory begins
    extern __shared__ Chunk memory[];
    return static_cast<u32>(__cvta_generic_to_shared(memory));
}
DEVICE Chunk read(u32 from) {
    Chunk c;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.part[0]), "=r"(c.part[1]), "=r"(c.part[2]), "=r"(c.part[3])
                 : "r"(from)
                 : "memory");
    return c;
}
DEVICE void write(u32 to, Chunk c) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                 :: "r"(to), "r"(c.part[0]), "r"(c.part[1]), "r"(c.part[2]), "r"(c.part[3])
                 : "memory");
}
DEVICE void write_two(u32 to, u32 both) {
    asm volatile("st.shared.u32 [%0], %1;" :: "r"(to), "r"(both) : "memory");
}
DEVICE float read_float(u32 from) {
    float f;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(f) : "r"(from) : "memory");
    return f;
}
DEVICE void write_float(u32 to, float f) {
    asm volatile("st.shared.f32 [%0], %1;" :: "r"(to), "f"(f) : "memory");
}

// Copies of 16 bytes that go on meanwhile; `arrived<N>` waits for all but this thread's last N
// groups.
DEVICE void copy(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
}
DEVICE void group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEVICE void arrived() {
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}

// Matrices of 8x8 halves; thread t names the address of row t % 8 of matrix t / 8. Of each matrix
// it gets row t / 4, columns t % 4 * 2 and the next; transposed, column t / 4, these rows.
DEVICE void matrices(u32 (&m)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(row) : "memory");
}
DEVICE void matrices(u32 (&m)[2], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1]) : "r"(row) : "memory");
}
DEVICE void transposed(u32 (&m)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(row) : "memory");
}
DEVICE void transposed(u32 (&m)[2], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1]) : "r"(row) : "memory");
}

#if FLOAT16
#define KIND "f16"
#else
#define KIND "bf16"
#endif

// d += a b, of float32: a is 16x16, its quarters left above, left below, right above, right below;
// b 16x8, its halves above and below; d 16x8. Second, a 16x8 and b 8x8. A quarter or half is a
// matrix as above, of b transposed.
DEVICE void add_product(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
DEVICE void add_product(float (&d)[4], u32 a0, u32 a1, u32 b0) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." KIND "." KIND ".f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
}

DEVICE u32 halves(float low, float high) {
    u32 both;
    asm("cvt.rn." KIND "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
DEVICE float low(u32 both) {
#if FLOAT16
    float f;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }" : "=f"(f) : "r"(both));
    return f;
#else
    return __uint_as_float(both << 16);
#endif
}
DEVICE float high(u32 both) {
#if FLOAT16
    float f;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }" : "=f"(f) : "r"(both));
    return f;
#else
    return __uint_as_float(both & 0xffff0000u);
#endif
}
