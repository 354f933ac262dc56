/** Lint rules: what STYLE asks for and tsc does not check. */
import tseslint from 'typescript-eslint'

const banned = [
  { selector: 'TSEnumDeclaration', message: 'No enums: a const object or a union of literals.' },
  { selector: 'ExportDefaultDeclaration', message: 'No default exports: one name, one spelling, one grep.' },
  { selector: 'TSParameterProperties, TSParameterProperty', message: 'No parameter properties: Node strips types, it does not rewrite code.' },
]

export default tseslint.config(
  { ignores: ['node_modules/', 'native/', 'build/', 'bin/'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'no-restricted-syntax': ['error', ...banned],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'none' }],
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      // The style's own habits: `!` after a bounds check, numbers in messages, early returns of void calls.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/restrict-template-expressions': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      eqeqeq: 'error',
      'prefer-const': 'error',
      'no-var': 'error',
      'no-console': 'off',
    },
  },
  // The sources of what src/ states: no host access, so that the generator runs without the daemon.
  {
    files: ['src/abi/**/*.ts', 'src/syscalls/table/**/*.ts'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['node:*', '../../native/*', '../native/*'] }] },
  },
)
