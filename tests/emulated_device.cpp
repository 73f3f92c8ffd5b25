// A device of torch's whose memory is the CPU's: what torch calls `privateuseone`.
//
// Tensors on it are made, copied and viewed here; every op runs on the CPU, by torch's
// own fallback. So what tells devices apart in a program is put to the test on machines
// that have no other device.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>

namespace {

constexpr auto kKind = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex kCount = 2;
constexpr size_t kAlignment = 64;
thread_local c10::DeviceIndex current = 0;

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* data = bytes ? std::aligned_alloc(kAlignment, whole) : nullptr;
    return {data, data, &std::free, c10::Device(kKind, current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

Memory memory;
REGISTER_ALLOCATOR(kKind, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kKind;
  c10::DeviceType type() const override { return kKind; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    current = device.index();
    return before;
  }
  c10::Device getDevice() const override { return {kKind, current}; }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current = device.index();
  }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    return stream;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kCount; }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kCount; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex index) const override { current = index; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  bool isPinnedPtr(const void*) const override { return false; }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return c10::GetCPUAllocator();
  }
};

Hooks hooks;
const int registered = [] {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  return 0;
}();

const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

c10::Device placed(std::optional<c10::Device> device) {
  const c10::Device found = device.value_or(c10::Device(kKind, current));
  return found.has_index() ? found : c10::Device(kKind, current);
}

at::Tensor empty_strided(c10::IntArrayRef shape, c10::IntArrayRef strides,
                         std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device,
                         std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(placed(device));
  return at::detail::empty_strided_generic(shape, strides, &memory, kKeys,
                                           c10::dtype_or_default(dtype));
}

at::Tensor empty(c10::IntArrayRef shape, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device,
                 std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(placed(device));
  return at::detail::empty_generic(shape, &memory, kKeys,
                                   c10::dtype_or_default(dtype), format);
}

// The memory of a tensor, wherever that is, as a tensor on the CPU.
at::Tensor on_cpu(const at::Tensor& x) {
  const auto options = x.options().device(c10::kCPU);
  const int64_t size = x.storage().nbytes() / std::max<int64_t>(1, x.itemsize());
  if (size == 0) return at::empty_strided(x.sizes(), x.strides(), options);
  return at::from_blob(x.storage().mutable_data(), {size}, options)
      .as_strided(x.sizes(), x.strides(), x.storage_offset());
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

at::Scalar local_scalar_dense(const at::Tensor& x) { return on_cpu(x).item(); }

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::native::cpu_fallback(op, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("as_strided", &at::cpu::as_strided);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("resize_", TORCH_FN(at::native::resize_));
  m.impl("set_.source_Storage_storage_offset",
         static_cast<at::Tensor& (*)(at::Tensor&, at::Storage, int64_t,
                                     c10::IntArrayRef, c10::IntArrayRef)>(
             &at::cpu::set_));
}
